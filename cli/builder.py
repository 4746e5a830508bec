"""The workstation's podman, run as the command that it is: asks registries, builds, pushes.

Registries are asked through podman, too, since it alone knows how it will reach
them: credentials, certificates, mirrors, or another machine's podman.
"""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

from api.errors import McpError, Refused
from cli.build_plan import Recipe, WantedImage
from cli.config import Building

_STDERR = 2
_ASKING = 60.0
"""Seconds for one question to a registry."""
_ENDING = 5.0
"""Seconds from asking podman to end until it is made to."""
_MOST_TAGS = 1_000_000
"""podman's own limit is 25."""

_NO_REPOSITORY = ("404 (Not Found)", "name unknown", "repository name not known", "NAME_UNKNOWN")
"""What podman says of `fetching tags list` where the registry answers that it has no such repository."""
_HINTS = {
    ("unauthorized", "authentication required", "denied"): "podman login {registry} tells podman who you are",
    ("gave HTTP response to HTTPS client",): "tls_verify = false in [build] of {source} lets podman speak plain HTTP",
    ("x509:",): "lay its CA down in /etc/containers/certs.d/{registry}/ca.crt",
}


class BuildFailed(McpError):
    """podman did not build or push an image."""


class Unknown(Refused):
    """Whether a tag exists could not be found out."""


class Podman:
    """The podman that `[build]` of mcp.toml names; `source` is what that file is called."""

    def __init__(self, building: Building, source: str, *, quiet: bool) -> None:
        self._building = building
        self._source = source
        self._quiet = quiet

    async def has(self, image: WantedImage) -> bool:
        """Whether the image's tag is in its registry, or here where it has none. Raises Unknown."""
        if not image.registry:
            return await self._holds(image)
        options = ["--list-tags", "--limit", str(_MOST_TAGS), "--format", "json"]
        status, said, problem = await self._ask("search", *options, *self._reaching(), image.repository)
        if status == 0:
            with suppress(ValueError, TypeError, AttributeError):
                return any(image.tag in (found.get("Tags") or ()) for found in json.loads(said))
            problem = "podman's list of tags cannot be read"
        if "fetching tags list" in problem and any(words in problem for words in _NO_REPOSITORY):
            return False
        raise Unknown(self._unknown(image, problem))

    async def _holds(self, image: WantedImage) -> bool:
        status, _, problem = await self._ask("image", "exists", image.reference)
        if status not in (0, 1):
            raise Unknown(self._unknown(image, problem))
        return status == 0

    def _unknown(self, image: WantedImage, problem: str) -> str:
        said = problem.rpartition("Error: ")[2].rpartition("getting repository tags:")[2]
        reason = " ".join(said.split())
        hint = next((hint for words, hint in _HINTS.items() if any(word in problem for word in words)), "")
        advice = f"; {hint.format(registry=image.registry, source=self._source)}" if hint else ""
        return (
            f"{image.reference} is not built: whether it exists already is not known: "
            f"{reason or 'podman did not say why'}{advice}"
        )

    async def build(self, recipe: Recipe) -> None:
        """Builds the image under its name. Raises BuildFailed."""
        version = ["--build-arg", f"VERSION={recipe.image.tag}"] if recipe.takes_version else []
        what = ["--tag", recipe.image.reference, "--file", str(recipe.dockerfile), str(recipe.context)]
        await self._do("build", *self._authenticated(), *version, *what)

    async def push(self, image: WantedImage) -> str:
        """Pushes the image; its digest there, or nothing where podman does not tell. Raises BuildFailed."""
        with tempfile.TemporaryDirectory(prefix="mcp-build-") as folder:
            path = Path(folder) / "digest"
            await self._do("push", *self._reaching(), "--digestfile", str(path), image.reference)
            # A podman that works on another machine takes the option and writes nothing.
            return path.read_text().strip() if path.exists() else ""

    def _reaching(self) -> list[str]:
        return [*self._authenticated(), *([] if self._building.tls_verify else ["--tls-verify=false"])]

    def _authenticated(self) -> list[str]:
        path = self._building.auth_file
        if path is not None and not os.access(path, os.R_OK):
            raise Refused(f"{path}, which is build.auth_file of {self._source}, cannot be read")
        return [] if path is None else ["--authfile", path]

    async def _ask(self, *arguments: str) -> tuple[int, str, str]:
        """Status, output and complaints of a podman that answers soon."""
        try:
            async with asyncio.timeout(_ASKING):
                return await self._run(arguments, PIPE)
        except TimeoutError:
            return -1, "", f"there was no answer within {_ASKING:g}s"

    async def _do(self, *arguments: str) -> None:
        status, _, said = await self._run(arguments, PIPE if self._quiet else _STDERR)
        if status:
            told = f":\n{said.strip()}" if said.strip() else ""
            raise BuildFailed(f"podman {arguments[0]} ended with status {status}{told}")

    async def _run(self, arguments: Sequence[str], output: int) -> tuple[int, str, str]:
        """Runs podman to its end; its output and complaints go to `output`, or are given back where that is PIPE."""
        command = [*self._building.podman, *arguments]
        try:
            # In a session of its own: an interrupt from the terminal is ours alone to pass on.
            process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise Refused(
                f"{command[0]} cannot be run: {error.strerror}: "
                f"install podman, or name it in build.podman of {self._source}"
            ) from error
        try:
            said, complained = await process.communicate()
        except asyncio.CancelledError:
            await _end(process)
            raise
        return process.returncode or 0, _text(said), _text(complained)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends podman with all that it runs: it would leave the command of a RUN behind."""
    left = list(_descendants(process.pid))
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_ENDING):
            await process.wait()
    except TimeoutError:
        process.kill()
    for pid in left:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    """The processes below that one, on a system that tells."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")
