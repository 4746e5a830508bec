"""What the API does about files: it keeps what is pushed, and reads what lies on the disk. It writes nothing there."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from io import BufferedReader
from typing import Final

from api.errors import InvalidSpec, NotFound, Refused
from api.files import PIECE_BYTES, FileTarget, FoundFile, Removal, ServiceFile, relative_path
from api.service import Service
from controller.preview import Preview
from controller.registry import Registry
from controller.settings import FileSettings
from reconcilers.files import beneath
from reconcilers.files.model import Site, Unsafe
from reconcilers.files.reconciler import Files

_AT_ONCE: Final = 4
"""Files that are taken in at the same time, each of them whole in memory; others wait."""

_PATIENCE: Final = 300.0
"""Seconds for one file to come: whoever is slower keeps others waiting."""


class LocalFiles:
    """The files of this node; implements api.files.Files."""

    def __init__(self, registry: Registry, preview: Preview, site: Site, settings: FileSettings) -> None:
        self._preview = preview
        self._registry = registry
        self._site = site
        self._settings = settings
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def push(self, target: FileTarget, pieces: AsyncIterator[bytes], *, actor: str) -> ServiceFile:
        """Keeps a file as desired state."""
        try:
            self._site.place(target.service, target.path)
        except Unsafe as error:
            raise Refused(error.message) from error
        await self._check_component(target)
        async with self._turns:
            try:
                async with asyncio.timeout(_PATIENCE):
                    content = await self._whole(target, pieces)
            except TimeoutError as error:
                raise Refused(f"{target.path} did not come whole within {_PATIENCE:g} s") from error
            return await self._registry.files.push(target, content, actor=actor, keep=self._settings.keep)

    async def remove(
        self,
        service: str,
        path: str,
        *,
        actor: str,
        delete: bool = False,
        forget: bool = False,
        dry_run: bool = False,
    ) -> Removal:
        """Takes a push back."""
        if dry_run:
            found = await self._registry.required(service)
            file = await self._registry.files.removal(service, path, actor=actor, delete=delete)
            return Removal(file=file, planned=await self._planned(found, file))
        keep = self._settings.keep
        file = await self._registry.files.remove(service, path, actor=actor, keep=keep, delete=delete, forget=forget)
        return Removal(file=file)

    async def pull(self, service: str, path: str) -> tuple[FoundFile, AsyncIterator[bytes]]:
        """What lies on the disk now: as much as it holds at this moment, while it may be written to."""
        await self.files(service)
        try:
            descriptor = await asyncio.to_thread(beneath.open_file, self._site.place(service, relative_path(path)))
        except ValueError as error:
            raise InvalidSpec("path", f'"{path}" {error}') from error
        except FileNotFoundError as error:
            raise NotFound(f"there is no {path} in the folder of {service}") from error
        except Unsafe as error:
            raise Refused(error.message) from error
        except OSError as error:
            raise Refused(f"{path} of {service} cannot be read: {error.strerror}") from error
        status = os.fstat(descriptor)
        found = FoundFile(
            size=status.st_size, mode=stat.S_IMODE(status.st_mode), owner=f"{status.st_uid}:{status.st_gid}"
        )
        return found, _contents(os.fdopen(descriptor, "rb"), status.st_size)

    async def files(self, service: str, *, history: bool = False) -> tuple[ServiceFile, ...]:
        """The files of a service."""
        found = await self._registry.required(service)
        return await self._registry.files.history(service) if history else found.files

    async def _planned(self, service: Service, file: ServiceFile) -> str:
        others = tuple(one for one in service.files if one.path != file.path)
        actions = await self._preview.apply(service.model_copy(update={"files": (*others, file)}))
        told = (one.description for one in actions if (one.resource, one.subject) == (Files.name, file.path))
        return next(told, "")

    async def _check_component(self, target: FileTarget) -> None:
        service = await self._registry.service(target.service)
        names = [component.name for component in service.spec.components] if service is not None else []
        if service is not None and target.component and target.component not in names:
            raise InvalidSpec("component", f'"{service.name}" has no "{target.component}", only {", ".join(names)}')

    async def _whole(self, target: FileTarget, pieces: AsyncIterator[bytes]) -> bytes:
        content = bytearray()
        async for piece in pieces:
            content += piece
            if len(content) > self._settings.max_bytes:
                most = self._settings.max_bytes
                raise Refused(f"{target.path} is larger than the {most} bytes that files.max_bytes of the agent allows")
        return bytes(content)


async def _contents(file: BufferedReader, size: int) -> AsyncIterator[bytes]:
    with file:
        left = size
        while left and (piece := await asyncio.to_thread(file.read, min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece
