"""A node without files, for tests of what is beside them."""

from collections.abc import AsyncIterator

from api.errors import NotFound
from api.files import FileTarget, FoundFile, Removal, ServiceFile


class NoFiles:
    """Implements api.files.Files for services that nobody knows."""

    async def push(self, target: FileTarget, pieces: AsyncIterator[bytes], *, actor: str) -> ServiceFile:
        raise NotFound(f'there is no service "{target.service}"')

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
        raise NotFound(f'there is no service "{service}"')

    async def pull(self, service: str, path: str) -> tuple[FoundFile, AsyncIterator[bytes]]:
        raise NotFound(f'there is no service "{service}"')

    async def files(self, service: str, *, history: bool = False) -> tuple[ServiceFile, ...]:
        raise NotFound(f'there is no service "{service}"')
