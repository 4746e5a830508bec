"""Observes the files of a service, has it decided what they should be, and lays them down."""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.files import ServiceFile
from api.service import Finalizer, Service
from reconcilers.base import Action, Plan, Terminal, Transient
from reconcilers.files import beneath
from reconcilers.files import plan as planner
from reconcilers.files.model import FileStore, Found, Observed, Site, Unsafe
from reconcilers.files.plan import Confirm, Forget, LayDown, Remove
from reconcilers.files.watch import Interests

_AT_ONCE = timedelta(milliseconds=10)


class Files:
    """Lays down what was pushed, and keeps so what is managed. Implements reconcilers.base.Reconciler."""

    name: ClassVar[str] = "files"
    condition: ClassVar[ConditionType] = ConditionType.FILES_IN_PLACE
    finalizer: ClassVar[Finalizer] = Finalizer.FILES

    def __init__(self, store: FileStore, site: Site, max_bytes: int) -> None:
        """What is larger than `max_bytes` was never pushed: it is not read to be compared."""
        self._store = store
        self._site = site
        self._max_bytes = max_bytes
        self._own = f"{os.geteuid()}:{os.getegid()}"
        self._interests = Interests()
        self._failed: dict[str, frozenset[str]] = {}

    async def run(self, wake: Callable[[str], None]) -> None:
        """Has those services looked at whose files somebody touches, for ever."""
        await self._interests.run(wake)

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        """What to do about the service's files. What cannot be seen of one is in the outcome, not raised."""
        files = planner.looked_at(service)
        if attend:
            # Subscribe first, then look: a change in between is told twice rather than never.
            self._follow(service, files)
        found = await asyncio.to_thread(lambda: {file.path: self._look(service.name, file) for file in files})
        observed = Observed(found, self._own, self._failed.get(service.name, frozenset()))
        if attend and service.deleting:
            self._failed.pop(service.name, None)
        if service.deleting:
            return planner.plan_deletion(service, observed)
        return planner.plan(service, observed, self._interests.blind(service.name))

    async def execute(self, service: Service, action: Action) -> None:
        """Carries out one action. Raises Transient, or Terminal where the disk does not let us."""
        match action:
            case LayDown(file=file):
                await self._lay_down(service, action)
                await self._store.laid(service.name, file.path, file.revision, changed=action.changes)
            case Confirm(file=file):
                await self._store.laid(service.name, file.path, file.revision, changed=False)
            case Remove(file=file):
                await self._on_disk(service, file, partial(beneath.remove, sha256=file.sha256))
                await self._done_with(service, file)
            case Forget(file=file):
                await self._done_with(service, file)
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service once `actions` worked."""
        return planner.assume(service, actions)

    async def _lay_down(self, service: Service, action: LayDown) -> None:
        file = action.file
        content = await self._store.content(file.sha256)
        if content is None:
            message = f"another push took the place of {file.path} meanwhile: looking again"
            raise Transient(Reason.PROGRESSING, message, delay=_AT_ONCE)
        uid, gid = map(int, (file.owner or self._own).split(":"))
        failed = self._failed.get(service.name, frozenset()) - {file.path}
        try:
            await self._on_disk(
                service, file, partial(beneath.lay_down, content=content, mode=file.mode, owner=(uid, gid))
            )
        except Terminal:
            failed |= {file.path}
            raise
        finally:
            self._failed[service.name] = failed
        # Only now may there be a folder to watch.
        self._follow(service, planner.looked_at(service))

    async def _done_with(self, service: Service, file: ServiceFile) -> None:
        if service.deleting:
            await self._store.forget(service.name, file.path)
        else:
            await self._store.gone(service.name, file.path, file.revision)

    async def _on_disk(self, service: Service, file: ServiceFile, work: Callable[..., None]) -> None:
        try:
            await asyncio.to_thread(work, self._site.place(service.name, file.path))
        except Unsafe as error:
            raise Terminal(Reason.CONFLICT, error.message) from error
        except OSError as error:
            raise Terminal(Reason.FILES_FAILED, _sentence(service, file, error)) from error

    def _look(self, service: str, file: ServiceFile) -> Found:
        try:
            return beneath.look(self._site.place(service, file.path), self._max_bytes)
        except Unsafe as error:
            return Found(problem=error.message)
        except OSError as error:
            return Found(problem=f"{file.path} cannot be looked at: {error.strerror}", reason=Reason.FILES_FAILED)

    def _follow(self, service: Service, files: Sequence[ServiceFile]) -> None:
        root = Path(self._site.root)
        self._interests.follow(service.name, root, [root / service.name / file.path for file in files])


def _sentence(service: Service, file: ServiceFile, error: OSError) -> str:
    return f"{file.path} of {service.name} cannot be laid down: {error.strerror or error}"
