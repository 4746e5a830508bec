"""What a change of the definition does to the world, and what several services do to each other."""

import pytest

from api.conditions import ConditionType, Reason
from api.service import ContainerState, Service
from stack import images
from stack.host import ZONE
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


async def test_the_older_of_two_holds_a_hostname_and_the_younger_takes_over(rig: Rig) -> None:
    older, younger, hostname = rig.name, f"y{rig.name}", f"{rig.name}.test"
    await rig.apply(rig.spec(older, routes=[rig.route(hostname=hostname)]))
    await rig.until_ready(older)
    spec = rig.spec(younger, image=images.HELLO_NEXT, routes=[rig.route(hostname=hostname)])
    await rig.apply(spec)
    condition = await rig.until_reason(ConditionType.ROUTES_PROGRAMMED, Reason.CONFLICT, younger)
    assert f'is held by service "{older}"' in condition.message
    assert rig.answers("mcp-hello v1.0.0", hostname)
    await rig.delete(older)
    await rig.until_ready(younger)
    assert rig.answers("mcp-hello v1.0.1", hostname)
    assert rig.table.hostnames() == [hostname]


async def test_a_component_that_is_dropped_goes_with_all_that_was_its(rig: Rig) -> None:
    spec = rig.spec(routes=[rig.route()])
    extra = rig.spec(routes=[rig.route(hostname=f"extra.{ZONE}")]).components[0].model_copy(update={"name": "extra"})
    await rig.apply(spec.model_copy(update={"components": (*spec.components, extra)}))
    await rig.until_ready()
    rig.until_it_answers(hostname=f"extra.{ZONE}")
    await rig.apply(spec)

    def settled(service: Service) -> bool:
        return (len(service.components), len(service.claims), len(service.ports), len(service.certificates)) == (
            (1,) * 4
        )

    await rig.until(settled)
    await rig.until_ready()
    assert (rig.containers(), rig.table.hostnames()) == ([rig.container], [rig.hostname])
    assert rig.files() == [f"{rig.name}.key", f"{rig.name}.pem"]
    assert rig.answers()


def _is_put_away(service: Service) -> bool:
    """Whether a stopped service's container is stopped and its route gone; the name stays its own."""
    routed = any(claim.backend for claim in service.claims)
    return service.components[0].state is ContainerState.EXITED and not routed


async def test_inactive_stops_and_keeps_and_active_starts_the_same_again(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    await rig.apply(rig.spec().model_copy(update={"active": False}))
    await rig.until_reason(ConditionType.READY, Reason.STOPPED)
    stopped = await rig.until(_is_put_away)
    assert stopped.components[0].container_id == before.components[0].container_id
    assert (rig.containers(), rig.table.hostnames()) == ([rig.container], [])
    assert stopped.ports == before.ports
    await rig.apply(rig.spec())
    after = await rig.until_ready()
    assert after.components[0].container_id == before.components[0].container_id
    rig.until_it_answers()


async def test_the_derived_folder_is_made_and_kept_when_it_has_data(rig: Rig) -> None:
    folder = rig.host.layout.root / "srv" / rig.name
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.podman.run("exec", rig.container, "/bin/busybox", "touch", f"/srv/{rig.name}/precious")
    assert (folder / "precious").exists()
    await rig.delete()
    assert (folder / "precious").exists()


async def test_a_service_deleted_before_it_was_ready_leaves_nothing(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.delete()
    assert (rig.containers(), rig.files(), rig.table.hostnames()) == ([], [], [])


async def test_a_name_is_new_again_once_its_service_is_gone(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.delete()
    assert (await rig.apply(rig.spec(image=images.HELLO_NEXT))).service.generation == 1
    await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")


async def test_ten_generations_in_a_row_end_in_the_last(rig: Rig) -> None:
    for number in range(10):
        await rig.apply(rig.spec(env=[f"NUMBER={number}"]))
    service = await rig.until_ready()
    assert service.generation == 10
    rig.until_it_answers()
    assert "NUMBER=9" in rig.host.fetch(rig.hostname, "/cgi-bin/env").splitlines()
    assert rig.containers() == [rig.container]
