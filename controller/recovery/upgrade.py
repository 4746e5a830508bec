"""Brings a registry to this version's schema without serving it."""

from dataclasses import dataclass

from controller.registry import Registry, copies
from controller.settings import Settings


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The schema's revision."""

    before: str | None
    """None: there was no registry."""
    after: str


async def migrate(settings: Settings) -> Upgraded:
    """Migrates the registry of these settings. Raises RegistryUnavailable, also where an agent serves it."""
    url = settings.registry_url
    before = _revision(url)
    registry = await Registry.open(url, settings.node)
    await registry.close()
    return Upgraded(before, copies.revision(url) or "")


def _revision(url: str) -> str | None:
    database = copies.database_file(url)
    if database is None:
        return copies.revision(url)
    with copies.held(database):
        return copies.revision(url)
