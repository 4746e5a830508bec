"""Reads what podman's API shows: listings of containers, and logs. Pure.

The shapes are those of libpod's `GET /containers/json` and `GET
/containers/{id}/logs`, the same from podman 4.0 to 5.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from api.service import ContainerState
from reconcilers.containers.model import ContainerObservation, Observation

_STATES: Final = {
    "created": ContainerState.CREATED,
    "configured": ContainerState.CREATED,
    "initialized": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.PAUSED,
    "stopping": ContainerState.STOPPING,
    # Ended, and not cleaned up yet.
    "stopped": ContainerState.EXITED,
    "exited": ContainerState.EXITED,
}

_CLEAN_UP: Final = timedelta(seconds=5)
"""Between a container's end and its clean-up usually lie some 100 ms."""

_FRAME: Final = struct.Struct(">4xI")
"""Before each piece of a log: its stream, and its length."""


def read(entries: list[dict[str, Any]], rootless: bool, now: datetime) -> Observation:
    """The containers of a listing made at `now`.

    Raises ValueError, LookupError, TypeError or AttributeError where any of
    them is incomplete: part of a listing is none.
    """
    found = [_container(entry) for entry in entries]
    if rootless:
        found = [_until_cleaned_up(*pair, now) for pair in zip(found, entries, strict=True)]
    return Observation({container.id: container for container in found})


def unframed(log: bytes) -> bytes:
    """The text of a multiplexed log; a piece that was cut off is given as far as it goes."""
    return b"".join(_pieces(log))


def _pieces(log: bytes) -> Iterator[bytes]:
    while len(log) >= _FRAME.size:
        (length,) = _FRAME.unpack_from(log)
        yield log[_FRAME.size : _FRAME.size + length]
        log = log[_FRAME.size + length :]


def _container(entry: dict[str, Any]) -> ContainerObservation:
    state = _STATES.get(entry["State"], ContainerState.UNKNOWN)
    code, ended = entry["ExitCode"], _moment(entry["ExitedAt"])
    return ContainerObservation(
        id=entry["Id"],
        name=entry["Names"][0],
        image=entry["Image"],
        state=state,
        image_id=entry["ImageID"],
        exit_code=code if ended is not None or state is ContainerState.EXITED else None,
        pid=entry["Pid"],
        labels=entry["Labels"] or {},
        ports=tuple(_published(port) for port in entry["Ports"] or ()),
        networks=tuple(entry["Networks"] or ()),
        created_at=datetime.fromisoformat(entry["Created"]),
        started_at=_moment(entry["StartedAt"]),
        ended_at=ended,
    )


def _until_cleaned_up(container: ContainerObservation, entry: dict[str, Any], now: datetime) -> ContainerObservation:
    """The container, still stopping until its clean-up is done.

    Required: started before, a rootless container keeps its network but not its rootlessport, and nobody reaches it.
    A clean-up that does not come at all is not waited for.
    """
    if entry["State"] != "stopped" or container.ended_at is None or now - container.ended_at > _CLEAN_UP:
        return container
    return replace(container, state=ContainerState.STOPPING)


def _moment(seconds: int) -> datetime | None:
    """Go's zero time lies before the epoch and means never."""
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None


def _published(port: dict[str, Any]) -> str:
    host, container, count = port["host_port"], port["container_port"], port.get("range") or 1
    last = count - 1
    span = f"{host}->{container}" if last == 0 else f"{host}-{host + last}->{container}-{container + last}"
    return f"{port['host_ip'] or '0.0.0.0'}:{span}/{port['protocol']}"  # noqa: S104  # it is shown, not bound
