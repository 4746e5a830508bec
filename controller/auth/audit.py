"""Writes down who wrote and who was refused: a line in the log, and a row in the registry that is never changed."""

from datetime import timedelta
from typing import Final

import structlog

from api.access import AuditRecord
from api.errors import RegistryUnavailable
from controller.auth.settings import AuditSettings
from controller.registry import Registry

PRUNE_EVERY: Final = 500
"""Records between two prunings: so many more may be there at a time."""

log = structlog.get_logger("audit")


class Audit:
    """Keeps as much as the settings say."""

    def __init__(self, registry: Registry, settings: AuditSettings) -> None:
        self._doors = registry.doors
        self._settings = settings
        self._written = 0

    async def write(self, record: AuditRecord) -> None:
        """Writes the record down. A registry that cannot be written loses the row, not the line; nothing is raised."""
        fields = record.model_dump(mode="json", exclude={"id", "at"}, exclude_defaults=True)
        log.info("call", **fields)
        try:
            # That of a caller whom nobody knows is not worth waiting for a disk.
            await self._doors.record(record, durable=bool(record.actor))
            self._written += 1
            if self._written >= PRUNE_EVERY:
                await self.prune()
        except RegistryUnavailable as error:
            log.error("not_written", reason=error.message, **fields)  # noqa: TRY400  # the sentence says it all

    async def prune(self) -> None:
        """Drops what is old or too much. Raises RegistryUnavailable."""
        self._written = 0
        await self._doors.prune_audit(timedelta(days=self._settings.keep_days), self._settings.keep_refused)
