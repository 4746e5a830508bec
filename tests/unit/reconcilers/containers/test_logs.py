"""Logs are taken apart as they come, and read again from where they were left."""

import struct
from datetime import UTC, datetime, timedelta

import pytest

from api.inspection import LogLine, LogStream
from reconcilers.containers.engine.logs import Again, Frames, Place, in_order, merged
from reconcilers.containers.engine.transport import EngineError

AT = datetime(2026, 11, 25, 9, 36, tzinfo=UTC)


def frame(text: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxI", stream, len(text)) + text


def test_a_log_that_comes_byte_by_byte_gives_the_same_lines() -> None:
    log = frame(b"2026-11-25T09:36:00Z one\n") + frame(b"2026-11-25T09:36:00.123456789+01:00 two\n", 2) + frame(b"3\n")
    frames = Frames()
    lines = [line for byte in log for line in frames.feed(bytes([byte]))]
    assert lines == Frames().feed(log)
    assert lines == [
        (LogStream.STDOUT, AT, b"one"),
        (LogStream.STDERR, (AT - timedelta(hours=1)).replace(microsecond=123456), b"two"),
        (LogStream.STDOUT, None, b"3"),
    ]


def test_a_long_line_is_joined_and_one_that_never_ends_is_cut() -> None:
    frames = Frames()
    assert frames.feed(frame(b"2026-11-25T09:36:00Z a")) == []
    assert frames.feed(frame(b"2026-11-25T09:36:00Z x\n", 2)) == [(LogStream.STDERR, AT, b"x")]
    assert frames.feed(frame(b"2026-11-25T09:36:01Z b\n")) == [(LogStream.STDOUT, AT, b"ab")]
    for _ in range(7):
        assert frames.feed(frame(b"2026-11-25T09:36:00Z " + b"x" * 8192)) == []
    ((_, _, text),) = frames.feed(frame(b"2026-11-25T09:36:00Z " + b"x" * 8192))
    assert len(text) == 65536
    frames.feed(frame(b"2026-11-25T09:36:00Z end"))
    assert frames.rest() == [(LogStream.STDOUT, AT, b"end")]


def test_what_is_no_log_is_not_heaped_up() -> None:
    for garbage in (b"HTTP/1.1 500", struct.pack(">BxxxI", 1, 1 << 31)):
        with pytest.raises(EngineError, match="none"):
            Frames().feed(garbage)


def test_a_log_that_is_read_again_goes_on_where_it_was_left() -> None:
    times = [AT, AT, AT + timedelta(seconds=1), AT + timedelta(seconds=1)]
    place = Place()
    for time in times:
        place.passed(time)
    again = Again.after(place, asked=100)
    assert [again.is_new(time) for time in [*times, times[-1], times[-1] + timedelta(seconds=1)]] == [
        *[False] * 4,
        True,
        True,
    ]


def test_where_the_beginning_was_left_out_within_a_second_that_second_counts_as_read() -> None:
    place = Place()
    for _ in range(3):
        place.passed(AT)
    again = Again.after(place, asked=3)
    assert [again.is_new(time) for time in [*[AT] * 10, AT + timedelta(seconds=1)]] == [*[False] * 10, True]


def line(text: str, seconds: int) -> LogLine:
    at = AT + timedelta(seconds=seconds)
    return LogLine(component="web", container="web", stream=LogStream.STDOUT, at=at, text=text.encode())


async def test_several_logs_are_one_by_time() -> None:
    async def log(*batches: tuple[LogLine, ...]):  # type: ignore[no-untyped-def]  # a generator, as `merged` takes
        for batch in batches:
            yield batch

    first = log((line("a", 0), line("c", 2)), (line("e", 4),))
    second = log((line("b", 1),), (line("d", 3), line("f", 5)))
    told = [one.text for batch in [batch async for batch in merged([first, second, log()])] for one in batch]
    assert told == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert [one.text for one in in_order([(line("b", 1),), (line("a", 0), line("c", 1))])] == [b"a", b"b", b"c"]
