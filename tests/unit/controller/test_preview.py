"""A dry run is the reconcilers' own plans, chained, and nothing carried out."""

from api.conditions import Reason, Status
from api.service import Component, Finalizer, PlannedAction, PortAllocation, Service
from controller.preview import Preview
from reconcilers.base import Outcome, Plan, Terminal, Transient
from tests.unit.controller.recording import RecordingContainers, RecordingPorts
from tests.unit.controller.registry.samples import spec
from tests.unit.reconcilers.memory import newborn

NEWBORN = newborn(spec())
GROWN = NEWBORN.model_copy(
    update={
        "ports": (PortAllocation(component="web", route="default", port=10001),),
        "components": (Component(name="web", container_name="hello-web"),),
        "finalizers": (Finalizer.CONTAINERS, Finalizer.PORTS),
        "deletion_requested_at": NEWBORN.created_at,
    }
)


def described(actions: tuple[PlannedAction, ...]) -> list[str]:
    return [f"{action.resource}: {action.description}" for action in actions]


async def test_each_step_assumes_that_those_before_it_worked() -> None:
    ports, containers = RecordingPorts(), RecordingContainers()
    planned = await Preview([ports, containers]).apply(NEWBORN)
    assert described(planned) == ["ports: do allocate", "containers: do create on 10001"]
    assert planned[0] == PlannedAction(resource="ports", verb="did", subject="allocate", description="do allocate")
    assert ports.executed == containers.executed == []
    # Nobody follows what is only thought of.
    assert ports.attended == containers.attended == [False]


async def test_a_deletion_runs_backwards_and_each_step_sees_those_before_it_gone() -> None:
    ports, containers = RecordingPorts(), RecordingContainers()
    planned = await Preview([ports, containers]).delete(GROWN)
    assert described(planned) == ["containers: do remove web", "ports: do release"]
    assert ports.seen[0].finalizers == (Finalizer.PORTS,)


async def test_what_cannot_be_planned_is_part_of_the_answer() -> None:
    ports, containers = RecordingPorts(), RecordingContainers()
    containers.failure = Transient(Reason.ENGINE_UNREACHABLE, "podman cannot be asked: gone")
    planned = await Preview([ports, containers]).apply(NEWBORN)
    assert [(action.resource, action.verb) for action in planned] == [("ports", "did"), ("containers", "unknown")]
    assert planned[1].description == "podman cannot be asked: gone"


async def test_what_the_policy_takes_out_of_a_plan_is_part_of_the_answer() -> None:
    class Forbidden(RecordingContainers):
        async def plan(self, service: Service, *, attend: bool = True) -> Plan:
            kept = (await super().plan(service, attend=attend)).actions
            return Plan(kept, Outcome(Status.FALSE, Reason.FORBIDDEN, "hello-task: not for you"))

    planned = await Preview([RecordingPorts(), Forbidden()]).apply(NEWBORN)
    assert described(planned) == [
        "ports: do allocate",
        "containers: do create on 10001",
        "containers: hello-task: not for you",
    ]


async def test_what_nobody_can_help_is_part_of_the_answer_too() -> None:
    ports = RecordingPorts()
    ports.failure = Terminal(Reason.PORTS_EXHAUSTED, "no port is free")  # type: ignore[assignment]
    (action,) = await Preview([ports]).delete(GROWN)
    assert (action.resource, action.verb, action.description) == ("ports", "unknown", "no port is free")
