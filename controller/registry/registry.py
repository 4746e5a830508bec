"""The registry: what is wanted, and what was found. Everyone meets here and nowhere else."""

from collections.abc import Callable, Collection
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import text

from api.conditions import Condition
from api.errors import NotFound
from api.service import (
    Certificate,
    Change,
    Component,
    Drain,
    Event,
    Finalizer,
    Revision,
    RouteClaim,
    Service,
    Suspension,
)
from api.spec import ServiceSpec
from controller.registry import reading
from controller.registry.adopted import AdoptedContainers
from controller.registry.desired import DesiredState
from controller.registry.doors import Doors
from controller.registry.engines import Mode
from controller.registry.file_rows import FileRows, Restored
from controller.registry.files import PushedFiles
from controller.registry.images import PulledImages
from controller.registry.observed import ObservedState
from controller.registry.records import Adoption, EventDraft, Report, utc_now
from controller.registry.store import Store, Transaction
from controller.registry.subscription import Subscription
from controller.registry.timeline import Timeline
from reconcilers.base import Clock, FixedPort, PulledImage

P = ParamSpec("P")
T = TypeVar("T")


class Registry:
    """One node's services in a database; implements reconcilers.base.Registry.

    Each method is one transaction, and transactions run one after the other in
    the order of the calls, also when their callers no longer wait. Every method
    raises RegistryUnavailable.
    """

    def __init__(self, store: Store, node: str, clock: Clock) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._timeline = Timeline(node)
        self._desired = DesiredState(node, self._timeline)
        self._observed = ObservedState(node, self._timeline)
        self._images = PulledImages(node)
        self._adopted = AdoptedContainers(node, self._desired, self._observed)
        self._file_rows = FileRows(node, clock, self._timeline)
        self.files = PushedFiles(store, node, clock, self._file_rows, self._desired)
        self.doors = Doors(store, node, clock)

    @classmethod
    async def open(cls, url: str, node: str, *, clock: Clock = utc_now) -> Self:
        """Opens the registry of `node` at SQLAlchemy's `url`, making and migrating it where needed.

        Raises RegistryUnavailable, also where another agent serves the same
        file or a newer version of MCP wrote it.
        """
        registry = cls(await Store.open(url), node, clock)
        await registry._write(registry._timeline.prune_all)
        return registry

    async def close(self) -> None:
        """Ends once all that was asked for is written; ends the subscriptions. Idempotent."""
        await self._store.close()

    # Desired state

    async def apply(
        self, spec: ServiceSpec, *, actor: str, expected_generation: int | None = None, note: str = ""
    ) -> tuple[Service, Change]:
        """Stores a definition: a new service, a new generation, or nothing where it is the same.

        Raises StaleGeneration unless the service is at `expected_generation` (0:
        unless it does not exist), Refused while it is being deleted. `note` is for the history.
        """
        return await self._write(self._desired.apply, spec, actor, expected_generation, self._clock(), note)

    async def adopt(self, adoption: Adoption, *, actor: str) -> Service:
        """Stores a new service together with its ports and the containers that run for it.

        Raises StaleGeneration where it exists, Refused while it is being
        deleted, PortTaken where a port is another route's.
        """
        return await self._write(self._adopted.adopt, adoption, actor, self._clock())

    async def roll_back(
        self, spec: ServiceSpec, generation: int, *, actor: str, note: str
    ) -> tuple[Service, Change, Restored]:
        """Stores a definition of an earlier generation together with the files that were pushed until its end.

        It is another generation where either differs. Raises NotFound, Refused.
        """
        return await self._write(self._roll_back, spec, generation, actor, note)

    async def restart(self, name: str, component: str = "", *, actor: str) -> Service:
        """Counts a wish for new containers: of that component, or of all that are to run.

        Raises NotFound, and Refused where they are stopped or on their way out.
        """
        return await self._write(self._desired.restart, name, component, actor, self._clock())

    async def request_deletion(self, name: str, *, actor: str, expected_generation: int | None = None) -> Service:
        """Marks a service for deletion; once more changes nothing. Raises NotFound, StaleGeneration."""
        return await self._write(self._desired.request_deletion, name, actor, expected_generation, self._clock())

    async def suspend(self, name: str, *, actor: str, reason: str = "") -> Service:
        """Has a service left alone; once more for the same reason changes nothing. Raises NotFound."""
        return await self._write(self._desired.suspend, name, actor, reason, self._clock())

    async def suspend_all(self, suspension: Suspension) -> None:
        """Has every service of the node left alone that is not already."""
        await self._write(self._desired.suspend_all, suspension)

    async def resume(self, name: str, *, actor: str) -> Service:
        """Has a service converged again; once more changes nothing. Raises NotFound."""
        return await self._write(self._desired.resume, name, actor, self._clock())

    async def drain(self, *, actor: str) -> None:
        """Notes that the node is to be kept empty; once more changes nothing."""
        await self._write(self._desired.drain, actor, self._clock())

    async def undrain(self) -> None:
        """Notes that it is not any more."""
        await self._write(self._desired.undrain)

    # Reads

    async def drained(self) -> Drain | None:
        """Who has the node kept empty, and since when; None: nobody."""
        return await self._read(self._desired.drained)

    async def service(self, name: str) -> Service | None:
        """The service, or None."""
        return await self._store.recall(name, self._one)

    async def required(self, name: str) -> Service:
        """The service. Raises NotFound."""
        if (service := await self.service(name)) is None:
            raise NotFound.service(name, self._node)
        return service

    async def services(self) -> tuple[Service, ...]:
        """All services of the node, by name."""
        return await self._store.recall_every(self._one, lambda transaction: reading.every(transaction, self._node))

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        """The last 50 definitions of a service, oldest first."""
        return await self._read(reading.revisions, self._node, name)

    async def events(self, service: str = "", *, limit: int = 100, after_id: int = 0) -> tuple[Event, ...]:
        """The newest `limit` events after that one, oldest first; of all services where none is named."""
        return await self._read(self._timeline.newest, service, limit, after_id)

    async def adopted_containers(self) -> dict[str, dict[str, str]]:
        """By its id, what the labels of each container would be that MCP took over and did not make."""
        return await self._read(self._adopted.every)

    async def check(self) -> str:
        """What the registry is called, where the database is whole. It may take a second for each 100 MB."""
        return await self._store.check()

    async def ping(self) -> None:
        """Returns where the registry can be read."""
        await self._read(lambda transaction: transaction.session.scalar(text("SELECT 1")))

    # The driver

    async def report(self, service: str, report: Report) -> None:
        """Writes all that one reconcile run says, and the summary that follows from it.

        A condition of an older generation than the one known is dropped.
        """
        await self._observe(self._observed.report, service, report, self._clock())

    async def tell(self, service: str, event: EventDraft, *, holds: Condition) -> bool:
        """Writes an event that follows from a condition; False where that does not hold any more."""
        return await self._observe(self._observed.tell, service, event, holds, self._clock())

    async def remove_finalizer(self, service: str, finalizer: Finalizer) -> bool:
        """Notes that nothing of that kind is left; True when the service is gone.

        Does nothing unless the service is being deleted. The last finalizer
        takes with it everything but the events.
        """
        return await self._write(self._desired.remove_finalizer, service, finalizer, self._clock())

    def subscribe(self) -> Subscription:
        """What is committed from now on, in order; use it on the event loop, from one task."""
        return self._store.hub.subscribe()

    # The reconcilers

    async def allocated_ports(self) -> frozenset[int]:
        """Every host port given to any route on this node."""
        return await self._read(self._observed.allocated_ports)

    async def fixed_ports(self, among: Collection[int]) -> tuple[FixedPort, ...]:
        """Those of these host ports that definitions on this node name themselves, by service."""
        return await self._read(reading.fixed_ports, self._node, among)

    async def port_holders(self, among: Collection[int]) -> dict[int, str]:
        """The service to whose route each of these ports is given, where it is."""
        return await self._read(self._observed.port_holders, among)

    async def allocate_port(self, service: str, component: str, route: str, port: int, slot: int = 0) -> None:
        """Gives the port to the route, replacing the one it had. Raises PortTaken."""
        await self._write(self._observed.allocate_port, service, component, route, port, slot)

    async def release_port(self, service: str, component: str, route: str, slot: int = 0) -> None:
        """Takes the route's port back."""
        await self._write(self._observed.release_port, service, component, route, slot)

    async def contest_port(self, service: str, component: str, route: str, port: int) -> None:
        """Notes that the engine found the route's port taken, if the route still has that port."""
        await self._write(self._observed.contest_port, service, component, route, port)

    async def record_certificate(self, service: str, certificate: Certificate) -> None:
        """Notes the certificate laid down, or about to be. Raises Claimed where another service holds its path."""
        await self._write(self._observed.record_certificate, service, certificate)

    async def certificate_holder(self, cert_path: str) -> str | None:
        """The service on this node whose certificate lies at that path."""
        return await self._read(self._observed.certificate_holder, cert_path)

    async def forget_certificate(self, service: str, hostname: str) -> None:
        """Drops the record of that hostname's certificate."""
        await self._write(self._observed.forget_certificate, service, hostname)

    async def record_component(self, service: str, component: Component) -> None:
        """Notes what was observed of the component's container."""
        await self._observe(self._observed.record_component, service, component)

    async def forget_component(self, service: str, component: str) -> None:
        """Drops the observation of a component that is no more."""
        await self._observe(self._observed.forget_component, service, component)

    async def claim_route(self, service: str, claim: RouteClaim) -> None:
        """Holds (listener, hostname) for the service, or updates what it holds. Raises Claimed."""
        await self._write(self._observed.claim_route, service, claim)

    async def release_route(self, service: str, listener: str, hostname: str) -> None:
        """Lets the name go."""
        await self._write(self._observed.release_route, service, listener, hostname)

    async def claim_holder(self, listener: str, hostname: str) -> str | None:
        """The service on this node that holds the name."""
        return await self._read(self._observed.claim_holder, listener, hostname)

    async def pulled_images(self) -> tuple[PulledImage, ...]:
        """The images that this node's MCP brought, the one brought last first."""
        return await self._read(self._images.every)

    async def record_image(self, image: PulledImage) -> None:
        """Notes an image that was brought."""
        await self._observe(self._images.record, image)

    async def images_in_use(self, image_ids: Collection[str]) -> None:
        """Notes that these are in use now."""
        await self._observe(self._images.in_use, image_ids, self._clock())

    async def forget_images(self, image_ids: Collection[str]) -> None:
        """Drops the records of images that are gone."""
        await self._observe(self._images.forget, image_ids)

    def _one(self, transaction: Transaction, name: str) -> Service | None:
        return reading.one(transaction, self._node, name)

    def _roll_back(
        self, transaction: Transaction, spec: ServiceSpec, generation: int, actor: str, note: str
    ) -> tuple[Service, Change, Restored]:
        restored = self._file_rows.then(transaction, spec.name, generation)
        anew, now = bool(restored.files), self._clock()
        _, change = self._desired.apply(transaction, spec, actor, None, now, note, anew=anew)
        self._file_rows.restore(transaction, spec.name, restored, generation, actor)
        transaction.session.flush()
        return self._desired.read(transaction, spec.name), change, restored

    async def _read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._store.run(lambda transaction: work(transaction, *args, **kwargs), Mode.READ)

    async def _observe(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._store.run(lambda transaction: work(transaction, *args, **kwargs), Mode.OBSERVATION)

    async def _write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._store.run(lambda transaction: work(transaction, *args, **kwargs), Mode.DURABLE)
