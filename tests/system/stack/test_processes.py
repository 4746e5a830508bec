"""Processes are ended only while they are still the ones that were started."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from stack import processes
from stack.layout import Layout
from stack.processes import Process, StackError

ENV = {"PATH": os.defpath}


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path)
    layout.make()
    yield layout
    layout.remove_run()


def test_a_process_is_started_once_and_ended(layout: Layout) -> None:
    first = processes.start(layout, "sleeper", ["sleep", "100"], env=ENV)
    assert processes.start(layout, "sleeper", ["sleep", "100"], env=ENV) == first
    assert processes.running(layout, "sleeper") == first
    processes.stop(layout, "sleeper")
    assert processes.running(layout, "sleeper") is None
    assert not processes.is_alive(first)
    processes.stop(layout, "sleeper")


def test_one_that_ignores_the_signal_is_killed_after_the_deadline(layout: Layout) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    deaf = processes.start(layout, "deaf", [sys.executable, "-c", script], env=ENV)
    log = layout.log / "deaf.log"
    processes.wait_until(layout, "deaf", lambda: "deaf" in log.read_text(), seconds=10)
    processes.stop(layout, "deaf", seconds=0.1)
    assert not processes.is_alive(deaf)


def test_another_process_with_a_recorded_pid_is_left_alone(layout: Layout) -> None:
    """The pid was given to somebody else since: the record's start time is not that of the process."""
    with subprocess.Popen(["sleep", "100"]) as stranger:
        known = processes.identify(stranger.pid)
        assert known is not None
        record = Process(known.pid, known.started - 1)
        (layout.pid / "ours.json").write_text(json.dumps(asdict(record)))
        assert processes.running(layout, "ours") is None
        processes.stop(layout, "ours")
        processes.end(record)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "started": 2, "more": 3}'])
def test_a_damaged_record_names_no_process(layout: Layout, damage: str) -> None:
    (layout.pid / "ours.json").write_text(damage)
    assert processes.running(layout, "ours") is None
    processes.stop(layout, "ours")


def test_waiting_ends_with_the_last_words_of_a_process_that_ends(layout: Layout) -> None:
    processes.start(layout, "brief", ["sh", "-c", "echo no luck; exec sleep 0.1"], env=ENV)
    with pytest.raises(StackError, match="brief ended before it was ready: no luck"):
        processes.wait_until(layout, "brief", lambda: False, seconds=30)
    with pytest.raises(StackError, match="brief ended before it was ready: no luck"):
        processes.wait_until(layout, "brief", lambda: False, seconds=30)
    processes.stop(layout, "brief")


def test_waiting_ends_at_its_deadline(layout: Layout) -> None:
    processes.start(layout, "slow", ["sleep", "100"], env=ENV)
    with pytest.raises(StackError, match=r"slow was not ready within 0\.1 s"):
        processes.wait_until(layout, "slow", lambda: False, seconds=0.1)
    processes.stop(layout, "slow")
