"""Pebbles that all tests share."""

from collections.abc import Iterator

import pytest

from stack.pebble import Pebble, pebble


@pytest.fixture(scope="session")
def moody_pebble() -> Iterator[Pebble]:
    """It refuses half of all good nonces, and never takes an authorization twice."""
    with pebble(environment={"PEBBLE_WFE_NONCEREJECT": "50", "PEBBLE_AUTHZREUSE": "0"}) as running:
        yield running


@pytest.fixture(scope="session")
def calm_pebble() -> Iterator[Pebble]:
    """It likes every nonce: for tests with trouble enough of their own."""
    with pebble(environment={"PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}) as running:
        yield running
