"""Addresses from which nobody came too often wait, ever longer, and are forgotten."""

import pytest

from controller.auth import throttle
from controller.auth.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(slow: Throttle, address: str, times: int) -> None:
    for _ in range(times):
        slow.failed(address)


def test_a_few_failures_cost_nothing_and_more_cost_ever_more_up_to_a_minute(clock: Clock) -> None:
    slow = Throttle(clock)
    waits = []
    for _ in range(14):
        slow.failed("192.0.2.1")
        waits.append(slow.wait("192.0.2.1"))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert slow.wait("192.0.2.2") == 0
    clock.now += 59
    assert slow.wait("192.0.2.1") == 1
    clock.now += 1
    assert slow.wait("192.0.2.1") == 0


def test_after_a_quiet_time_it_begins_anew(clock: Clock) -> None:
    slow = Throttle(clock)
    fail(slow, "192.0.2.1", 20)
    clock.now += 601
    slow.failed("192.0.2.1")
    assert slow.wait("192.0.2.1") == 0


def test_what_one_customer_has_of_ipv6_counts_as_one_address(clock: Clock) -> None:
    slow = Throttle(clock)
    for number in range(5):
        slow.failed(f"2001:db8::{number:x}")
    assert slow.wait("2001:db8::ffff") == 1
    assert slow.wait("2001:db8:0:1::1") == 0
    fail(slow, "::ffff:192.0.2.1", 5)
    assert slow.wait("192.0.2.1") == 1


def test_its_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_REMEMBERED", 10)
    slow = Throttle(clock)
    fail(slow, "192.0.2.1", 6)
    for number in range(100):
        slow.failed(f"198.51.100.{number}")
    assert len(slow._failures) == 10
