"""Small real reconcilers that say what they were asked, and a plane over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from api.conditions import ConditionType
from api.service import Component, Finalizer, PortAllocation, Service
from reconcilers.base import CONVERGED, Action, Plan, Transient


@dataclass(frozen=True, slots=True)
class Do(Action):
    what: str
    verb: ClassVar[str] = "did"

    @property
    def subject(self) -> str:
        return self.what

    def describe(self) -> str:
        return f"do {self.what}"


class Recording:
    """Looks at what it is given, and does nothing without being told to."""

    name: ClassVar[str]
    condition: ClassVar[ConditionType]
    finalizer: ClassVar[Finalizer]

    def __init__(self) -> None:
        self.seen: list[Service] = []
        self.attended: list[bool] = []
        self.executed: list[Action] = []
        self.failure: Transient | None = None

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        self.seen.append(service)
        self.attended.append(attend)
        if self.failure is not None:
            raise self.failure
        return Plan(self.decide(service), CONVERGED)

    def decide(self, service: Service) -> tuple[Action, ...]:
        raise NotImplementedError

    async def execute(self, service: Service, action: Action) -> None:
        self.executed.append(action)

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        raise NotImplementedError


class RecordingPorts(Recording):
    """Wants port 10001 for the first component, once nothing else is left to go."""

    name = "ports"
    condition = ConditionType.PORTS_ALLOCATED
    finalizer = Finalizer.PORTS

    def decide(self, service: Service) -> tuple[Action, ...]:
        if service.deleting:
            return (Do("release"),) if service.ports and service.finalizers == (Finalizer.PORTS,) else ()
        return () if service.ports else (Do("allocate"),)

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        given = (PortAllocation(component="web", route="default", port=10001),)
        return service.model_copy(update={"ports": given}) if actions and not service.deleting else service


class RecordingContainers(Recording):
    """Wants a container of the port that it is given."""

    name = "containers"
    condition = ConditionType.CONTAINERS_RUNNING
    finalizer = Finalizer.CONTAINERS

    def decide(self, service: Service) -> tuple[Action, ...]:
        if service.deleting:
            return tuple(Do(f"remove {component.name}") for component in service.components)
        return () if service.components else tuple(Do(f"create on {port.port}") for port in service.ports)

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        if service.deleting:
            return service.model_copy(update={"components": ()})
        made = (Component(name="web", container_name=f"{service.name}-web"),)
        return service.model_copy(update={"components": made}) if actions else service
