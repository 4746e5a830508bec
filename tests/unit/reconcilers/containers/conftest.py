"""Processes to watch."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

Starter = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts a process that does nothing, until it is killed or the test ends."""
    with ExitStack() as started:

        def sleeper() -> "subprocess.Popen[bytes]":
            process = started.enter_context(subprocess.Popen(["sleep", "600"]))
            started.callback(process.kill)
            return process

        yield sleeper
