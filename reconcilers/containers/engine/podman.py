"""What can be asked of podman, and what its answers mean.

The bodies are ours: podman-py's own models drop and rewrite fields. The event
stream, each running command, each pull and each log that is read have
connections of their own.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from api.service import Container
from reconcilers.containers.engine import listing
from reconcilers.containers.engine.adoptions import Adoptions
from reconcilers.containers.engine.transport import (
    API,
    MOST_OUTPUT,
    EngineError,
    EngineSettings,
    Failure,
    Transport,
    json_of,
    object_of,
    text_of,
    unreachable,
)
from reconcilers.containers.images.credentials import SHUT_OUT, Access
from reconcilers.containers.images.references import LocalImage
from reconcilers.containers.model import Observation

_LIST_TIMEOUT: Final = 10.0
"""Seconds. A listing changes nothing and takes milliseconds: an engine that hangs is noticed by it."""

# By which a registry's own answer is told from the lack of one.
_DENIALS: Final = (*SHUT_OUT, "denied: ", "manifest unknown", "name unknown", "name invalid", "not found")

# What happens inside a container, or to its files, changes nothing that a listing shows.
_SILENT: Final = frozenset({"attach", "exec", "exec_died", "export", "health_status", "mount", "sync", "unmount"})


@dataclass(frozen=True, slots=True)
class ExecState:
    """What became of a command inside a container."""

    pid: int
    """In the engine's pid namespace; 0 where it does not run."""
    exit_code: int
    """Of a command that ended."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container, or to an image. What, a listing says."""

    id: str
    action: str
    of_image: bool = False


class Engine:
    """One podman. Every method raises Transient(ENGINE_UNREACHABLE) where it cannot be asked."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.adoptions = Adoptions()
        self._podman = Transport(settings)
        self._execs = ThreadPoolExecutor(4, "podman-exec")

    def close(self) -> None:
        """Gives up all connections and idle threads."""
        self._execs.shutdown(wait=False, cancel_futures=True)
        self._podman.close()

    async def ping(self) -> str:
        """The engine's version, cheaply."""
        answer = await self._podman.call("GET", "/_ping")
        return str(answer.headers.get("Libpod-API-Version", "unknown"))

    async def list(self, ids: Collection[str] | None = None) -> Observation:
        """All containers, ours or not; only those with one of `ids` where given. An incomplete answer raises."""
        params = {"all": "true"}
        if ids is not None:
            params["filters"] = json.dumps({"id": sorted(ids)})
        limit = min(_LIST_TIMEOUT, self._settings.timeout)
        answer = await self._podman.call("GET", "/containers/json", params=params, limit=limit)
        try:
            return self.adoptions.labelled(listing.read(answer.json(), self._rootless(), datetime.now(UTC)))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise unreachable(f"the listing of containers is incomplete: {error}") from error

    def _rootless(self) -> bool:
        try:
            return Path(self._settings.socket).stat().st_uid != 0
        except OSError:
            return False

    async def containers(self, node: str) -> tuple[Container, ...]:
        """All containers as the API shows them, ours or not, by name."""
        found = (
            Container(
                id=container.id,
                name=container.name,
                image=container.image,
                state=container.state,
                owned=container.owned_by(node),
                service=container.service,
                component=container.component,
                ports=container.ports,
                created_at=container.created_at,
            )
            for container in await self.list()
        )
        return tuple(sorted(found, key=lambda container: container.name))

    async def create(self, body: str) -> str:
        """Creates a container from a SpecGenerator and returns its id. Raises EngineError."""
        answer = await self._podman.call("POST", "/containers/create", data=body)
        return text_of(answer, "Id")

    async def start(self, container_id: str) -> None:
        """Starts it, or leaves it running. Raises EngineError."""
        await self._podman.call("POST", f"/containers/{container_id}/start")

    async def work_out(self) -> None:
        """Has the engine do so much that its language's garbage collector runs soon. Raises EngineError."""
        await self._podman.call("GET", "/images/json", params={"all": "true"})

    async def rename(self, container_id: str, name: str) -> None:
        """Gives it another name. Raises EngineError."""
        await self._podman.call("POST", f"/containers/{container_id}/rename", params={"name": name})

    async def unpause(self, container_id: str) -> None:
        """Lets it go on. Raises EngineError."""
        await self._podman.call("POST", f"/containers/{container_id}/unpause")

    async def mounts(self, container_id: str) -> tuple[str, ...]:
        """The host paths that a container mounts. Raises EngineError."""
        shown = await self.inspect(container_id)
        try:
            return tuple(mount["Source"] for mount in shown["Mounts"] if mount["Type"] == "bind")
        except (LookupError, TypeError) as error:
            raise EngineError(Failure.GARBLED, f"the answer about container {container_id} is incomplete") from error

    async def stop(self, container_id: str) -> None:
        """Has it end, by force after a while, or leaves it ended. Raises EngineError."""
        await self._ending("POST", container_id, "/stop")

    async def remove(self, container_id: str) -> None:
        """Stops and removes it with grace; its volumes stay. One that is gone is no error. Raises EngineError."""
        try:
            await self._ending("DELETE", container_id, force="true", v="false")
        except EngineError as error:
            if error.failure is not Failure.NO_SUCH_CONTAINER:
                raise

    async def inspect(self, container_id: str) -> dict[str, Any]:
        """All that is known of one container, as the engine says it; see `found`. Raises EngineError."""
        return object_of(await self._podman.call("GET", f"/containers/{container_id}/json"))

    async def inspect_image(self, image: str) -> dict[str, Any]:
        """The same of an image; empty where it is gone. Raises EngineError."""
        answer = await self._podman.call("GET", f"/images/{quote(image, safe='')}/json", allow=(404,))
        return {} if answer.status_code == 404 else object_of(answer)

    async def last_words(self, container_id: str, lines: int = 5) -> str:
        """The last lines of its log that are not empty. Raises EngineError."""
        params = {"stdout": "true", "stderr": "true", "tail": str(lines)}
        answer = await self._podman.call("GET", f"/containers/{container_id}/logs", params=params)
        said = listing.unframed(answer.content).decode(errors="replace").split("\n")
        return "\n".join(line for line in said if line.strip())

    @asynccontextmanager
    async def logs(
        self, container_id: str, *, follow: bool, tail: int | None, since: datetime | None
    ) -> AsyncIterator[asyncio.StreamReader]:
        """What a container wrote, as `logs.Frames` reads it; to follow ends with the container. Raises EngineError."""
        flags = {"stdout": "true", "stderr": "true", "timestamps": "true", "follow": str(follow).lower()}
        limits = {"tail": "all" if tail is None else str(tail)}
        if since is not None:
            limits["since"] = since.isoformat()
        path = f"/v{API}/libpod/containers/{container_id}/logs?{urlencode(flags | limits)}"
        async with self._podman.connection(f"GET {path} HTTP/1.0\r\n\r\n".encode(), refusable=True) as reader:
            yield reader

    async def stats(self) -> tuple[dict[str, Any], ...]:
        """What running containers use, as libpod's ContainerStats. Raises EngineError with why it cannot be said."""
        found = json_of(await self._podman.call("GET", "/containers/stats", params={"stream": "false"}))
        try:
            if problem := found.get("Error"):
                raise EngineError(Failure.REFUSED, str(problem))
            return tuple(dict(entry) for entry in found["Stats"] or ())
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise EngineError(Failure.GARBLED, "podman's answer about usage is incomplete") from error

    async def info(self) -> dict[str, Any]:
        """What it says of itself and its host; takes some 300 ms. Raises EngineError."""
        return object_of(await self._podman.call("GET", "/info"))

    async def create_exec(self, container_id: str, command: Sequence[str]) -> str:
        """Prepares a command in a running container and returns its id. Raises EngineError."""
        body = json.dumps({"Cmd": command, "AttachStdout": True, "AttachStderr": True})
        answer = await self._podman.call("POST", f"/containers/{container_id}/exec", data=body, pool=self._execs)
        return text_of(answer, "Id")

    async def exec_output(self, exec_id: str) -> str:
        """Runs a prepared command, for as long as it lasts, and returns the beginning of what it printed."""
        body = '{"Detach": false}'
        head = f"POST /v{API}/libpod/exec/{exec_id}/start HTTP/1.0\r\nContent-Type: application/json\r\n"
        output = bytearray()
        async with self._podman.connection(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()) as reader:
            while part := await reader.read(MOST_OUTPUT):
                output += part[: MOST_OUTPUT - len(output)]
        return listing.unframed(bytes(output)).decode(errors="replace")

    async def exec_state(self, exec_id: str) -> ExecState:
        """What became of a command that was run. Raises EngineError."""
        found = json_of(await self._podman.call("GET", f"/exec/{exec_id}/json", pool=self._execs))
        try:
            return ExecState(int(found["Pid"]), int(found["ExitCode"]))
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(Failure.GARBLED, "podman's answer is incomplete") from error

    async def image(self, reference: str) -> LocalImage | None:
        """The image that the reference stands for here, or None. Raises EngineError."""
        answer = await self._podman.call("GET", f"/images/{quote(reference, safe='')}/json", allow=(404,))
        return None if answer.status_code == 404 else _image(json_of(answer))

    async def images(self) -> tuple[LocalImage, ...]:
        """All images that the engine holds. Raises EngineError."""
        found = json_of(await self._podman.call("GET", "/images/json"))
        return tuple(_image(entry) for entry in found)

    async def untag(self, image_id: str, name: str) -> None:
        """Takes one of its names away. Raises EngineError."""
        repository, _, tag = name.rpartition(":")
        await self._podman.call("POST", f"/images/{image_id}/untag", params={"repo": repository, "tag": tag})

    async def remove_image(self, image_id: str) -> None:
        """Removes an image that nothing uses and that has one name at most. Raises EngineError."""
        await self._podman.call("DELETE", f"/images/{image_id}", params={"force": "false"})

    async def pull(
        self, reference: str, access: Access, said: Callable[[str], None] = lambda _: None, *, anew: bool = False
    ) -> str:
        """Makes the image present and returns its id; a caller that no longer waits ends it.

        `said` is called with each thing that podman says on the way; `anew`: the
        registry is asked even where the image is present.
        Raises EngineError with the reason of whoever refused it.
        """
        how = {"policy": "always" if anew else "missing", "tlsVerify": str(access.tls_verify).lower()}
        query = urlencode({"reference": reference, **how})
        lines = [f"POST /v{API}/libpod/images/pull?{query} HTTP/1.0"]
        lines += [f"{name}: {value}" for name, value in {"Content-Length": "0", **access.headers()}.items()]
        async with self._podman.connection("\r\n".join([*lines, "", ""]).encode()) as reader:
            while True:
                try:
                    async with asyncio.timeout(self._settings.pull_timeout):
                        entry = dict(json.loads(await reader.readline()))
                except (ValueError, TypeError) as error:
                    raise EngineError(Failure.GARBLED, f"the answer to the pull of {reference} breaks off") from error
                if problem := str(entry.get("error", "")):
                    raise EngineError(_pull_failure(problem), access.explain(problem))
                if "id" in entry:
                    return str(entry["id"])
                said(str(entry.get("stream", "")).strip())

    async def make_network(self, name: str, interface: str, labels: dict[str, str]) -> None:
        """Makes a bridge network with names for its containers; one that exists stays. Raises EngineError."""
        network = {
            "name": name,
            "driver": "bridge",
            "network_interface": interface,
            "dns_enabled": True,
            "labels": labels,
        }
        await self._podman.call("POST", "/networks/create", data=json.dumps(network), allow=(409,))

    async def network_labels(self, name: str) -> dict[str, str] | None:
        """The labels of the network, or None where it does not exist. Raises EngineError."""
        answer = await self._podman.call("GET", f"/networks/{quote(name, safe='')}/json", allow=(404,))
        if answer.status_code == 404:
            return None
        try:
            return dict(answer.json().get("labels") or {})
        except (ValueError, AttributeError) as error:
            raise EngineError(Failure.GARBLED, f"the answer about network {name} is incomplete") from error

    async def remove_unused_network(self, name: str) -> bool:
        """Removes the network unless a container is on it; whether it did. Raises EngineError."""
        try:
            await self._podman.call("DELETE", f"/networks/{quote(name, safe='')}", allow=(404,))
        except EngineError as error:
            if "being used" in error.message:
                return False
            raise
        return True

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        """What happens to containers and images from now on: once entered, nothing is missed.

        The iteration raises Transient when the stream ends. It ends by itself
        when nothing was heard for so long that the stream might be dead.
        """
        # HTTP/1.0 has no chunks: the answer's body is the lines themselves, until somebody hangs up.
        since = datetime.now(UTC).timestamp() - 1
        query = f"stream=true&since={since:.0f}&filters={quote(json.dumps({'type': ['container', 'image']}))}"
        request = f"GET /v{API}/libpod/events?{query} HTTP/1.0\r\n\r\n"
        async with self._podman.connection(request.encode()) as reader:
            yield self._events_in(reader)

    async def _events_in(self, reader: asyncio.StreamReader) -> AsyncIterator[EngineEvent]:
        while True:
            try:
                async with asyncio.timeout(self._settings.event_timeout):
                    line = await reader.readline()
            except TimeoutError:
                return
            except (OSError, ValueError) as error:
                raise unreachable(f"its events broke off: {error}") from error
            try:
                entry = json.loads(line)
                event = EngineEvent(entry["Actor"]["ID"], entry["Action"], entry.get("Type") == "image")
            except (ValueError, KeyError, TypeError) as error:
                raise unreachable("its events ended" if not line else "an event is incomplete") from error
            if event.action not in _SILENT:
                yield event

    async def _ending(self, method: str, container_id: str, path: str = "", **params: str) -> None:
        """A call in which the container has its own time to end; only the patience with the engine depends on it."""
        shown = await self.inspect(container_id)
        try:
            grace = int(shown["Config"]["StopTimeout"])
        except (ValueError, LookupError, TypeError) as error:
            raise EngineError(Failure.GARBLED, f"the answer about container {container_id} is incomplete") from error
        limit = self._settings.timeout + grace
        await self._podman.call(method, f"/containers/{container_id}{path}", params=params, limit=limit)


def _pull_failure(problem: str) -> Failure:
    return Failure.DENIED if any(words in problem for words in _DENIALS) else Failure.REFUSED


def _image(entry: dict[str, Any]) -> LocalImage:
    try:
        # One that is just being written has nothing but its id.
        names, digests = tuple(entry.get("RepoTags") or ()), tuple(entry.get("RepoDigests") or ())
        return LocalImage(entry["Id"], names, digests, entry.get("Digest", ""))
    except (LookupError, TypeError, AttributeError) as error:
        raise EngineError(Failure.GARBLED, "podman's answer about an image is incomplete") from error
