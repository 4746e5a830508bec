"""A pebble that all tests share, in its worst mood."""

from collections.abc import Iterator

import pytest

from stack.pebble import Pebble, pebble


@pytest.fixture(scope="session")
def moody_pebble() -> Iterator[Pebble]:
    """It refuses half of all good nonces, and never takes an authorization twice."""
    with pebble(environment={"PEBBLE_WFE_NONCEREJECT": "50", "PEBBLE_AUTHZREUSE": "0"}) as running:
        yield running
