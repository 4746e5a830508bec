"""How podman is spoken to: the only module that knows its transport, and what its refusals look like.

Calls go over podman-py's in a bounded number of worker threads; each has a
timeout, since cancelling an await does not end the thread. What is read as it
comes has a connection of its own, read by the event loop.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from podman.api.client import APIClient
from podman.errors import PodmanError
from requests import RequestException, Response

from api.conditions import Reason
from reconcilers.base import Transient

# The oldest API of podman 4; later ones still serve it.
API: Final = "4.0.0"

MOST_OUTPUT: Final = 1 << 16
"""Bytes of an answer that is kept whole."""

# Podman 4 answers nearly everything with 500 and a sentence. What the sentence ends in is its own error's text.
_KINDS: Final = (
    ("image not known", "NO_SUCH_IMAGE"),
    ("network not found", "NO_SUCH_NETWORK"),
    ("no such container", "NO_SUCH_CONTAINER"),
    ("name is already in use", "NAME_IN_USE"),
    ("address already in use", "ADDRESS_IN_USE"),
    ("port is already allocated", "ADDRESS_IN_USE"),
)


class Failure(Enum):
    """What an engine that answered did not like."""

    NO_SUCH_IMAGE = auto()
    NO_SUCH_NETWORK = auto()
    NO_SUCH_CONTAINER = auto()
    NAME_IN_USE = auto()
    ADDRESS_IN_USE = auto()
    DENIED = auto()
    """A registry answered, and does not give the image."""
    REFUSED = auto()
    """It said why, in its own words only."""
    GARBLED = auto()
    """The answer is none of podman's: whether the call did its work is not known."""


class EngineError(Exception):
    """The engine answered, and not with success; `message` is its own reason."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to reach the engine. Times are in seconds."""

    socket: str
    timeout: float = 30.0
    """Of one call."""
    pull_timeout: float = 600.0
    """Of the engine's silence during a pull."""
    event_timeout: float = 60.0
    """After so long a silence the event stream is opened anew: it might be dead."""
    workers: int = 8


class Transport:
    """The way to one podman. Every method raises Transient(ENGINE_UNREACHABLE) where it cannot be asked."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._client = APIClient(
            base_url=f"unix://{settings.socket}",
            version=API,
            timeout=settings.timeout,
            max_pool_size=settings.workers + 2,
        )
        self._calls = ThreadPoolExecutor(settings.workers, "podman")

    def close(self) -> None:
        """Gives up all connections and idle threads."""
        self._calls.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        data: str | None = None,
        limit: float | None = None,
        allow: tuple[int, ...] = (),
        pool: ThreadPoolExecutor | None = None,
    ) -> Response:
        """The whole answer, got by a worker, of `pool` if given. Raises EngineError unless its status is allowed."""
        send: Callable[..., Response] = getattr(self._client, method.lower())
        call = partial(send, path, params=params, timeout=limit or self._settings.timeout)
        if data is not None:
            call = partial(call, data=data, headers={"Content-Type": "application/json"})
        try:
            answer = await asyncio.get_running_loop().run_in_executor(pool or self._calls, call)
        except (PodmanError, RequestException) as error:
            raise unreachable(_root_cause(error)) from error
        # 304: it is so already.
        if answer.status_code >= 400 and answer.status_code not in allow:
            raise _refusal(answer)
        return answer

    @asynccontextmanager
    async def connection(self, request: bytes, *, refusable: bool = False) -> AsyncIterator[asyncio.StreamReader]:
        """The answer to a request in HTTP/1.0 as it comes, behind its head.

        `refusable`: a refusal is podman's own word, and raised as EngineError.
        """
        writer = None
        try:
            async with asyncio.timeout(self._settings.timeout):
                reader, writer = await asyncio.open_unix_connection(self._settings.socket, limit=1 << 20)
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if refusable and b" 200 " not in head.partition(b"\r\n")[0]:
                    raise _refusal_in(await reader.read(MOST_OUTPUT))
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise unreachable("it refuses to tell what happens")
            yield reader
        except TimeoutError as error:
            raise unreachable("it says nothing") from error
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise unreachable(str(error) or type(error).__name__) from error
        finally:
            if writer is not None:
                writer.transport.abort()


def unreachable(why: str) -> Transient:
    """What is raised where podman cannot be asked."""
    return Transient(Reason.ENGINE_UNREACHABLE, f"podman cannot be asked: {why}")


def _root_cause(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


def _refusal(answer: Response) -> EngineError:
    return _refusal_in(answer.content, f"podman answered {answer.status_code} without a reason")


def _refusal_in(body: bytes, otherwise: str = "podman refuses without a reason") -> EngineError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return EngineError(Failure.GARBLED, otherwise)
    kind = next((kind for text, kind in _KINDS if message.endswith(text)), "REFUSED")
    return EngineError(Failure[kind], message)


def text_of(answer: Response, key: str) -> str:
    """One text of an answer. Raises EngineError."""
    try:
        return str(answer.json()[key])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(Failure.GARBLED, "podman's answer is incomplete") from error


def object_of(answer: Response) -> dict[str, Any]:
    """The object that an answer is. Raises EngineError."""
    found = json_of(answer)
    if not isinstance(found, dict):
        raise EngineError(Failure.GARBLED, "podman's answer is incomplete")
    return found


def json_of(answer: Response) -> Any:
    """What an answer says. Raises EngineError."""
    try:
        return answer.json()
    except ValueError as error:
        raise EngineError(Failure.GARBLED, "podman's answer is incomplete") from error
