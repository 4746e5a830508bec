"""Runs what blocks for long beside the loop, so that neither the loop nor the agent's end ever waits for it."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


async def beside(function: Callable[[], T], patience: timedelta) -> T:
    """The function's result, from a thread of its own. Raises TimeoutError once `patience` is over.

    The thread is not waited for, not even when the process ends: what it does
    must be such that dying at any moment is harmless. A pool of threads would
    be joined at exit, and could be filled by a server that never answers.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(how: Callable[[Any], None], what: object) -> None:
        def unless_gone() -> None:
            if not answer.done():
                how(what)

        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(unless_gone)

    def run() -> None:
        try:
            result = function()
        except Exception as error:  # whatever it is belongs to the one who awaits it
            tell(answer.set_exception, error)
        else:
            tell(answer.set_result, result)

    threading.Thread(target=run, name="certs-beside", daemon=True).start()
    async with asyncio.timeout(patience.total_seconds()):
        return await answer
