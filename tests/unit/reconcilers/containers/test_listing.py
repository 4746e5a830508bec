"""What podman 4.3.1 answered, read."""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.service import ContainerState
from reconcilers.containers.engine import listing
from reconcilers.containers.model import ContainerObservation

ENDED = datetime(2026, 11, 25, 10, 11, 41, tzinfo=UTC)
NEVER = -62135596800


def entry(**changes: object) -> dict[str, Any]:
    """One container as podman lists it."""
    shown = {
        "Created": "2026-11-25T10:11:41.256746955Z",
        "ExitedAt": NEVER,
        "ExitCode": 0,
        "Id": "cfbc764812c8",
        "Image": "localhost/mcp-exit:v1.0.0",
        "ImageID": "0f1e2d",
        "Labels": None,
        "Names": ["x7"],
        "Networks": ["mcpnet"],
        "Pid": 4711,
        "Ports": [
            {"host_ip": "127.0.0.1", "container_port": 80, "host_port": 10001, "range": 1, "protocol": "tcp"},
            {"host_ip": "", "container_port": 90, "host_port": 90, "range": 3, "protocol": "udp"},
        ],
        "StartedAt": 1795601501,
        "State": "running",
    }
    return {**shown, **changes}


def read(shown: dict[str, Any], *, rootless: bool = False, now: datetime = ENDED) -> ContainerObservation:
    (container,) = listing.read([shown], rootless, now)
    return container


def test_a_running_container() -> None:
    container = read(entry())
    assert (container.state, container.pid, container.exit_code) == (ContainerState.RUNNING, 4711, None)
    assert (container.started_at, container.ended_at) == (ENDED, None)
    assert container.created_at == ENDED.replace(microsecond=256746)
    assert container.ports == ("127.0.0.1:10001->80/tcp", "0.0.0.0:90-92->90-92/udp")
    assert (container.labels, container.networks) == ({}, ("mcpnet",))


@pytest.mark.parametrize("code", [0, 3])
def test_an_ended_container_has_a_code_even_where_its_end_has_no_time(code: int) -> None:
    assert read(entry(State="exited", ExitedAt=1795601501, ExitCode=code)).exit_code == code
    assert read(entry(State="exited", ExitCode=code)).exit_code == code


def test_a_state_that_we_do_not_know_is_unknown_and_not_absent() -> None:
    assert read(entry(State="removing")).state is ContainerState.UNKNOWN


def test_without_root_a_container_has_ended_only_when_it_is_cleaned_up() -> None:
    shown = entry(State="stopped", ExitedAt=1795601501, ExitCode=137)
    assert read(shown).state is ContainerState.EXITED
    assert read(shown, rootless=True).state is ContainerState.STOPPING
    assert read(shown, rootless=True, now=ENDED + timedelta(seconds=6)).state is ContainerState.EXITED
    assert read({**shown, "State": "exited"}, rootless=True).state is ContainerState.EXITED


@pytest.mark.parametrize("missing", sorted(entry().keys()))
def test_a_listing_in_which_anything_is_missing_is_none(missing: str) -> None:
    shown = entry()
    del shown[missing]
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        listing.read([entry(), shown], False, ENDED)


@pytest.mark.parametrize("wrong", [{"Names": []}, {"Created": "yesterday"}, {"Ports": ["80"]}, {"StartedAt": "x"}])
def test_so_is_one_in_which_anything_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        listing.read([entry(**wrong)], False, ENDED)


def test_a_log_is_freed_of_its_frames_as_far_as_it_goes() -> None:
    def piece(text: bytes) -> bytes:
        return struct.pack(">B3xI", 1, len(text)) + text

    assert listing.unframed(piece(b"one\n") + piece(b"two\n")) == b"one\ntwo\n"
    assert listing.unframed(piece(b"one\n") + piece(b"two\n")[:10]) == b"one\ntw"
    assert listing.unframed(b"") == b""
