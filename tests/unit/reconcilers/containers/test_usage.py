"""Usage is the difference of two looks, and what the engine cannot measure is unknown."""

from datetime import UTC, datetime

from api.service import ContainerState
from reconcilers.containers.engine.usage import Sample, usage
from reconcilers.containers.model import ContainerObservation, Observation

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def container(name: str, state: ContainerState = ContainerState.RUNNING) -> ContainerObservation:
    return ContainerObservation(id=name, name=name, image="i", state=state, networks=("net",))


def sample(**figures: dict[str, int]) -> Sample:
    return Sample(0.0, NOW, figures)


def entry(cpu: int, at: int, **more: int) -> dict[str, int]:
    return {"CPUNano": cpu, "SystemNano": at, "MemUsage": 1, "MemLimit": 2, "PIDs": 3, "NetInput": 4, **more}


PICTURE = Observation({"a": container("a"), "b": container("b", ContainerState.EXITED)})


def test_processor_time_is_what_was_used_between_two_looks() -> None:
    before, now = sample(a=entry(1_000, 10_000)), sample(a=entry(2_000, 12_000))
    (one,) = usage(PICTURE, now, before, "rift").containers
    assert (one.cpu, one.memory, one.memory_limit, one.pids, one.received) == (0.5, 1, 2, 3, 4)
    assert usage(PICTURE, now, None, "rift").containers[0].cpu is None


def test_a_restart_between_two_looks_is_no_negative_usage() -> None:
    (one,) = usage(PICTURE, sample(a=entry(1, 12_000)), sample(a=entry(1_000, 10_000)), "rift").containers
    assert one.cpu is None


def test_zero_is_unknown_and_so_is_who_is_not_in_the_answer() -> None:
    nothing = sample(a=entry(0, 0, MemUsage=0, MemLimit=0, PIDs=0, NetInput=0))
    for figures in (nothing, sample()):
        (one,) = usage(PICTURE, figures, nothing, "rift").containers
        assert {one.cpu, one.memory, one.memory_limit, one.pids, one.received, one.sent} == {None}
