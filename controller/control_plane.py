"""What the API does: it writes desired state, and reads. Everything else is the reconcilers'."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from api.control_plane import DEFAULT_EVENTS, DEFAULT_LOOK_SECONDS, DRAINED, Adopted, Applied, Deleted, Looked, Watched
from api.diff import diff
from api.errors import Refused, StaleGeneration, Unreachable
from api.files import ServiceFile
from api.resolve import Defaults
from api.secrecy import marked_as, shown, with_stored_secrets
from api.service import Change, Container, Event, Finalizer, NodeStatus, Revision, Service
from api.spec import ServiceSpec
from controller import wishes
from controller.admission import Admission
from controller.adoption import Adopter, Wish
from controller.preview import Preview
from controller.registry import ChangeKind, Registry
from reconcilers.base import Transient
from reconcilers.containers.engine.transport import EngineError

_ALL_EVENTS = 1_000_000
"""More than the registry keeps."""

_SUSPEND_SECONDS = 10.0
"""So long whoever suspends a service waits for the end of what is under way; a pull may take much longer."""


class LocalControlPlane:
    """The control plane of this node; implements api.control_plane.ControlPlane."""

    def __init__(
        self,
        node: str,
        registry: Registry,
        defaults: Defaults,
        preview: Preview,
        containers: Callable[[], Awaitable[tuple[Container, ...]]],
        node_status: Callable[[], Awaitable[NodeStatus]],
        look: Callable[[str, float], Awaitable[tuple[str, ...]]],
        adopter: Adopter,
    ) -> None:
        """`look` has all reconcilers look at a service, for so many seconds, and names those that did not."""
        self._node = node
        self._registry = registry
        self._preview = preview
        self._containers = containers
        self._node_status = node_status
        self._look = look
        self._adopter = adopter
        self._defaults = defaults
        self._admission = Admission(node, defaults, registry)
        # It reads other services before this one is written.
        self._admitting = asyncio.Lock()

    async def apply(
        self,
        spec: ServiceSpec,
        *,
        actor: str,
        dry_run: bool = False,
        expected_generation: int | None = None,
        component: str = "",
    ) -> Applied:
        """Stores a definition, or one component of it, as desired state, or says what that would change."""
        async with self._admitting:
            if component:
                spec = wishes.with_component((await self.get(spec.name)).spec, spec, component)
            stored = await self._registry.service(spec.name)
            spec = with_stored_secrets(spec, stored.spec if stored else None)
            note = ""
            if (spec.active or component) and await self._kept_stopped(stored):
                spec, note = spec.model_copy(update={"active": False}), DRAINED
            if dry_run:
                return await self._dry_apply(spec, expected_generation)
            return await self._apply(spec, actor, expected_generation, note)

    async def _kept_stopped(self, stored: Service | None) -> bool:
        """Whether what is applied to it is not started, for its node's sake: what was started there by name runs."""
        return (stored is None or not stored.spec.active) and await self._registry.drained() is not None

    async def _apply(self, spec: ServiceSpec, actor: str, expected: int | None = None, note: str = "") -> Applied:
        await self._admission.admit(spec)
        before = await self._registry.service(spec.name)
        fields = diff(before.spec if before else None, spec)
        if before is not None and fields and shown(before.spec) == shown(spec):
            # A history of what may be shown would not tell what it was about.
            note = note or f"another value of {', '.join(field.path for field in fields)}"
        if fields and all(field.path.endswith(".secret_env") for field in fields):
            # The marks of today are shown in all of the history.
            note = note or f"what is secret: {', '.join(field.path for field in fields)}"
        service, change = await self._registry.apply(spec, actor=actor, expected_generation=expected, note=note)
        return Applied(service, change, fields)

    async def _dry_apply(
        self, spec: ServiceSpec, expected: int | None = None, files: Collection[ServiceFile] = ()
    ) -> Applied:
        await self._admission.admit(spec)
        before = await self._registry.service(spec.name)
        StaleGeneration.check(spec.name, before.generation if before else 0, expected)
        if before is None:
            service, change = _newborn(spec, self._node), Change.CREATED
        elif before.deleting:
            raise Refused.deleting(spec.name)
        elif before.spec == spec and not files:
            service, change = before, Change.UNCHANGED
        else:
            then = {file.path: file for file in (*before.files, *files)}
            update = {"spec": spec, "generation": before.generation + 1, "files": tuple(then.values())}
            service, change = before.model_copy(update=update), Change.CONFIGURED
        fields = diff(before.spec if before else None, spec)
        return Applied(service, change, fields, await self._preview.apply(service))

    async def delete(
        self, name: str, *, actor: str, dry_run: bool = False, expected_generation: int | None = None
    ) -> Deleted:
        """Marks a service for deletion, or says what that would take away."""
        if not dry_run:
            return Deleted(
                await self._registry.request_deletion(name, actor=actor, expected_generation=expected_generation)
            )
        service = await self.get(name)
        StaleGeneration.check(name, service.generation, expected_generation)
        if not service.deleting:
            service = service.model_copy(update={"deletion_requested_at": datetime.now(UTC)})
        return Deleted(service, await self._preview.delete(service))

    async def suspend(self, name: str, *, actor: str, reason: str = "") -> Looked:
        """Has a service left alone; the answer comes when nothing is done to it any more."""
        service = await self._registry.suspend(name, actor=actor, reason=reason)
        late = await self._look(name, _SUSPEND_SECONDS)
        return Looked(await self._registry.service(name) or service, late)

    async def resume(self, name: str, *, actor: str) -> Service:
        """Has a service converged again."""
        return await self._registry.resume(name, actor=actor)

    async def reconcile(self, name: str, *, within: float = DEFAULT_LOOK_SECONDS) -> Looked:
        """Has all reconcilers look at a service."""
        service = await self.get(name)
        late = await self._look(name, within)
        return Looked(await self._registry.service(name) or service, late)

    async def set_active(self, name: str, component: str = "", *, active: bool, actor: str, note: str = "") -> Applied:
        """Has a service, or one component of it, run or be kept stopped."""
        async with self._admitting:
            service = await self.get(name)
            if component and service.drained:
                # It is the node that is kept empty: what one component shall do later changes nothing of that.
                note = DRAINED
            return await self._apply(wishes.with_active(service.spec, component, active), actor, note=note)

    async def restart(self, name: str, component: str = "", *, actor: str) -> Service:
        """Has containers made anew."""
        return await self._registry.restart(name, component, actor=actor)

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        """What a service was to be, oldest first; what it marks as secret now is so in what it was before, too."""
        marks = (await self.get(name)).spec
        revisions = await self._registry.revisions(name)
        return tuple(one.model_copy(update={"spec": marked_as(one.spec, marks)}) for one in revisions)

    async def rollback(self, name: str, generation: int = 0, *, actor: str, dry_run: bool = False) -> Applied:
        """Makes an earlier revision the desired state again."""
        async with self._admitting:
            service = await self.get(name)
            revision = wishes.earlier(service, await self._registry.revisions(name), generation)
            # The image brought last comes first, and what runs now is what its tag stands for.
            brought = {one.reference: one.digest for one in reversed(await self._registry.pulled_images())}
            running = {one.image: one.digest for one in service.components if one.digest}
            spec = marked_as(wishes.rerun(revision, self._defaults, brought | running), service.spec)
            note = f"rolled back to generation {revision.generation}"
            if spec.active and await self._kept_stopped(service):
                spec, note = spec.model_copy(update={"active": False}), DRAINED
            if dry_run:
                restored = await self._registry.files.restorable(name, revision.generation)
                planned = await self._dry_apply(spec, files=restored.files)
                return replace(planned, notes=restored.notes(revision.generation))
            await self._admission.admit(spec)
            after, change, restored = await self._registry.roll_back(spec, revision.generation, actor=actor, note=note)
            fields = diff(service.spec, spec)
            return Applied(after, change, fields, notes=restored.notes(revision.generation))

    async def adopt(
        self,
        name: str,
        containers: Mapping[str, str],
        routes: Mapping[str, str],
        *,
        actor: str,
        dry_run: bool = False,
    ) -> Adopted:
        """Takes over containers that run without a definition."""
        async with self._admitting:
            if await self._registry.service(name) is not None:
                raise Refused(f'service "{name}" is defined: mcp status {name} shows what it lacks')
            draft = await self._adopter.draft(Wish(name, containers, routes))
            await self._admission.admit(draft.spec)
            if dry_run:
                newborn = _newborn(draft.spec, self._node).model_copy(update={"ports": draft.ports})
                return Adopted(newborn, draft.containers, draft.notes)
            return Adopted(await self._adopter.take(draft, actor), draft.containers, draft.notes)

    async def get(self, name: str) -> Service:
        """One service. Raises NotFound."""
        return await self._registry.required(name)

    async def services(self) -> tuple[Service, ...]:
        """All services of the node, by name."""
        return await self._registry.services()

    async def watch(self, names: Collection[str] = ()) -> AsyncIterator[Watched]:
        """The services as they are, `synced`, then each change."""
        sent: dict[str, Service] = {}
        # Subscribe first, then list: a change in between is told twice rather than never.
        async with self._registry.subscribe() as changes:
            for service in await self._registry.services():
                if not names or service.name in names:
                    sent[service.name] = service
                    yield Watched(service=service)
            yield Watched(synced=True)
            async for change in changes:
                if change.kind is ChangeKind.EVENT or (names and change.service not in names):
                    continue
                current = await self._registry.service(change.service)
                if current is None:
                    if sent.pop(change.service, None) is not None:
                        yield Watched(deleted=change.service)
                elif current != sent.get(current.name):
                    sent[current.name] = current
                    yield Watched(service=current)

    async def events(self, service: str = "", *, limit: int = DEFAULT_EVENTS) -> tuple[Event, ...]:
        """The newest events, newest last."""
        return await self._registry.events(service, limit=limit)

    async def watch_events(self, service: str = "", *, after_id: int = 0) -> AsyncIterator[Event]:
        """The events after that one, as they come."""
        async with self._registry.subscribe() as changes:
            last = after_id or await self._newest_event()
            while True:
                for event in await self._registry.events(service, after_id=last, limit=_ALL_EVENTS):
                    last = event.id
                    yield event
                async for change in changes:
                    if change.kind is ChangeKind.EVENT:
                        break

    async def _newest_event(self) -> int:
        newest = await self._registry.events(limit=1)
        return newest[-1].id if newest else 0

    async def containers(self) -> tuple[Container, ...]:
        """Every container on the node, ours or not. Raises Unreachable where the engine does not say."""
        try:
            return await self._containers()
        except (Transient, EngineError) as failure:
            raise Unreachable(failure.message) from failure

    async def node_status(self) -> NodeStatus:
        """The agent and what it depends on."""
        return await self._node_status()

    async def set_drained(self, drained: bool, *, actor: str) -> None:
        """Has what is applied to the node stored and not started, or no longer."""
        async with self._admitting:
            await (self._registry.drain(actor=actor) if drained else self._registry.undrain())


def _newborn(spec: ServiceSpec, node: str) -> Service:
    now = datetime.now(UTC)
    return Service(
        uid=str(uuid4()),
        name=spec.name,
        node=node,
        generation=1,
        spec=spec,
        created_at=now,
        updated_at=now,
        finalizers=tuple(Finalizer),
    )
