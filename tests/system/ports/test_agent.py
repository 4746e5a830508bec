"""Host ports as the whole agent gives them, on real podman and the real kernel, with others in the way."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from api.conditions import ConditionType, Reason
from api.errors import ExitCode, InvalidSpec
from api.manifest import dump
from reconcilers.ports.linux import is_bindable
from tests.system.ports.conftest import Pair, connected_from, leave_in_time_wait, listening

pytestmark = pytest.mark.system

ALLOCATED = ConditionType.PORTS_ALLOCATED


async def test_exhaustion_is_a_condition_and_ends_when_a_port_is_given_back(pair: Pair, name: str) -> None:
    rig = pair.rig
    await rig.apply(pair.spec("greedy", routes=2, active=False))
    await rig.until(lambda service: len(service.ports) == 2, "greedy")
    await rig.apply(pair.spec(name))
    condition = await rig.until_reason(ALLOCATED, Reason.PORTS_EXHAUSTED, name)
    assert condition.message == (
        f"no port is free between {pair.low} and {pair.low + 1}: widen [ports] in the agent's settings"
    )
    await rig.delete("greedy")
    # Woken: it would have looked again by itself after ten seconds.
    await rig.until_ready(name, seconds=5)
    assert [event.kind for event in await rig.events(name)].count("failed") == 1


async def test_a_service_that_trades_its_last_port_for_another_gets_it(pair: Pair, name: str) -> None:
    rig = pair.rig
    await rig.apply(pair.spec("other"))
    await rig.until_ready("other")
    await rig.apply(pair.spec(name, active=False))
    before = await rig.until(lambda service: bool(service.ports), name)
    renamed = pair.spec(name, active=False, routes=1).model_dump(mode="json")
    renamed["components"][0]["routes"][0]["name"] = "renamed"
    await rig.apply(type(before.spec).model_validate(renamed))
    after = await rig.until(lambda service: [port.route for port in service.ports] == ["renamed"], name, seconds=5)
    assert [port.port for port in after.ports] == [port.port for port in before.ports]


@pytest.mark.parametrize("stranger", [listening, connected_from])
async def test_a_port_that_a_stranger_takes_before_the_start_leads_to_another(
    pair: Pair, name: str, stranger: Callable[[int], AbstractContextManager[None]]
) -> None:
    rig = pair.rig
    await rig.apply(pair.spec(name, active=False))
    (given,) = (await rig.until(lambda service: bool(service.ports), name)).ports
    with stranger(given.port):
        await rig.apply(pair.spec(name))
        service = await rig.until_ready(name)
        assert not is_bindable(given.port)
    (moved,) = service.ports
    assert {given.port, moved.port} == {pair.low, pair.low + 1}
    assert "reallocated" in [event.kind for event in await rig.events(name)]


async def test_a_port_in_time_wait_keeps_no_container_from_starting(pair: Pair, name: str) -> None:
    rig = pair.rig
    await rig.apply(pair.spec(name, active=False))
    (given,) = (await rig.until(lambda service: bool(service.ports), name)).ports
    leave_in_time_wait(given.port)
    assert not is_bindable(given.port)
    await rig.apply(pair.spec(name))
    assert (await rig.until_ready(name)).ports == (given,)


async def test_a_port_in_time_wait_is_not_chosen(pair: Pair, name: str) -> None:
    leave_in_time_wait(pair.low)
    await pair.rig.apply(pair.spec(name))
    (given,) = (await pair.rig.until_ready(name)).ports
    assert given.port == pair.low + 1


async def test_no_route_gets_a_port_that_another_service_names(pair: Pair, name: str) -> None:
    rig = pair.rig
    await rig.apply(pair.spec("fixed", routes=0, ports=[f"127.0.0.1:{pair.low}:8080"]))
    await rig.apply(pair.spec(name))
    assert [port.port for port in (await rig.until_ready(name)).ports] == [pair.low + 1]
    await rig.until_ready("fixed")
    with pytest.raises(InvalidSpec, match=f'port {pair.low + 1} is given to a route of service "{name}"') as refused:
        await rig.apply(pair.spec("late", routes=0, ports=[f"{pair.low + 1}:8080"]))
    assert refused.value.field == "components[0].ports[0]"


@pytest.mark.parametrize("dry_run", [True, False])
async def test_the_command_line_shows_the_other_service_and_the_circle(
    pair: Pair, name: str, tmp_path: Path, *, dry_run: bool
) -> None:
    rig = pair.rig
    await rig.apply(pair.spec("fixed", routes=0, active=False, ports=["127.0.0.1:9:8080"]))
    first = pair.spec("first", routes=0, active=False).model_copy(update={"depends_on": ("fixed", name)})
    await rig.apply(first)
    flags = ["--dry-run"] if dry_run else []
    for wish, problem in (
        (pair.spec(name, routes=0, ports=["9:80"]), "components[0].ports[0]: port 9/tcp on 127.0.0.1 is that of"),
        (
            pair.spec(name, routes=0).model_copy(update={"depends_on": ("first",)}),
            f"depends_on: services would wait for each other in a circle: {name} -> first -> {name}",
        ),
    ):
        (file := tmp_path / f"{name}.toml").write_text(dump(wish))
        done = rig.host.mcp("apply", *flags, "-f", file)
        assert done.returncode == ExitCode.REFUSED
        assert problem in done.stdout + done.stderr
