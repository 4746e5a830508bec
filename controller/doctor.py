"""Looks at all that a node needs, side by side, and says of each what to do: the agent's half of `mcp doctor`.

A check that cannot look is a finding too. Nothing is changed, and nothing is
remembered: whoever asks again looks again.
"""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.errors import RegistryUnavailable
from api.inspection import Finding
from api.service import NodeStatus
from controller import checks
from controller.alerts.alerts import Alerts
from controller.certificate import ApiCertificate
from controller.recovery import history
from controller.registry import Registry, utc_now
from controller.settings import Settings
from reconcilers.base import Terminal, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.watching.picture import Picture
from reconcilers.ports.linux import ephemeral_ports

_PATIENCE: Final = 10.0
"""Seconds that one check has."""

Check = Callable[[], Awaitable[tuple[Finding, ...]]]


@dataclass(frozen=True, slots=True)
class Doctor:
    """The checks of one node."""

    settings: Settings
    registry: Registry
    engine: Engine
    picture: Picture
    status: Callable[[], Awaitable[NodeStatus]]
    certificate: ApiCertificate | None
    alerts: Alerts | None

    async def diagnose(self) -> tuple[Finding, ...]:
        """All findings, in an order that does not change."""
        every: Mapping[str, Check] = {
            "podman": self._podman,
            "proxy": self._proxy,
            "CA": self._certificates,
            "API certificate": self._api,
            "registry": self._registry,
            "snapshots": self._snapshots,
            "clock": self._clock,
            "disk": self._disk,
            "ports": self._ports,
            "leftovers": self._leftovers,
            "alerts": self._alerts,
        }
        found = await asyncio.gather(*(_patiently(name, check) for name, check in every.items()))
        return tuple(finding for findings in found for finding in findings)

    async def _podman(self) -> tuple[Finding, ...]:
        socket = self.settings.podman.socket
        try:
            info = await self.engine.info()
        except (Transient, EngineError) as failure:
            advice = (
                "start it: systemctl enable --now podman.socket (--user without root), or set podman.socket; where"
                " permission is denied, the agent has to run as the account whose podman it is (User= in its unit)"
            )
            return (checks.problem("podman", f"{socket}: {failure.message}", advice),)
        findings: tuple[Finding, ...] = (
            checks.podman(info, socket),
            checks.runtime(info, os.path.exists),
            checks.cgroups(info),
        )
        store = str(info["store"]["graphRoot"])
        findings += (await _space("podman's storage", Path(store)),)
        if info["host"]["security"]["rootless"]:
            findings += await asyncio.to_thread(_rootless, Path(socket), str(info["store"]["runRoot"]))
        return findings

    async def _proxy(self) -> tuple[Finding, ...]:
        if not self.settings.mcproxy.socket:
            return (checks.ok("proxy", "none is configured: this node routes nothing"),)
        part = next((part for part in (await self.status()).parts if part.name == "mc-proxy"), None)
        folder = checks.writable("certificate folder", Path(self.settings.mcproxy.cert_dir))
        if part is None or not part.reachable:
            advice = f"start mc-proxy, and let the agent's account open {self.settings.mcproxy.socket}"
            return checks.problem("proxy", part.detail if part else "was not asked", advice), folder
        return checks.ok("proxy", part.detail), folder

    async def _certificates(self) -> tuple[Finding, ...]:
        path = Path(self.settings.state_dir) / "ca" / "ca.pem"
        return (
            await asyncio.to_thread(checks.authority, path, utc_now()),
            checks.certificates(await self.registry.services(), utc_now()),
        )

    async def _api(self) -> tuple[Finding, ...]:
        if self.certificate is None:
            return ()
        shown = await asyncio.to_thread(self.certificate.shown)
        given = bool(self.settings.api.cert_file)
        return (checks.api_certificate(shown.not_after, shown.problem, utc_now(), given=given),)

    async def _snapshots(self) -> tuple[Finding, ...]:
        found = (await self.status()).snapshots
        return (checks.snapshots(found, history.folder(self.settings)),)

    async def _registry(self) -> tuple[Finding, ...]:
        try:
            name = await self.registry.check()
        except RegistryUnavailable as failure:
            advice = "stop the agent and restore the registry from a snapshot"
            return (checks.problem("registry", failure.message, advice),)
        return (checks.ok("registry", f"{name} is whole"),)

    async def _clock(self) -> tuple[Finding, ...]:
        newest = await self.registry.events(limit=1)
        hardware = Path("/sys/class/rtc/rtc0/since_epoch")
        return (
            checks.clock(utc_now(), newest[-1].at if newest else None, hardware),
            checks.synchronised(await _output("timedatectl", "show", "--property=NTPSynchronized", "--value")),
        )

    async def _disk(self) -> tuple[Finding, ...]:
        return (await _space("state folder", Path(self.settings.state_dir)),)

    async def _ports(self) -> tuple[Finding, ...]:
        given = await self.registry.allocated_ports()
        how = self.settings.ports
        return (checks.ports(how.low, how.high, len(given), ephemeral_ports()),)

    async def _leftovers(self) -> tuple[Finding, ...]:
        services = {service.name: service for service in await self.registry.services()}
        return (checks.leftovers(await self.picture.known(), services, self.settings.node),)

    async def _alerts(self) -> tuple[Finding, ...]:
        last = self.alerts.last if self.alerts else None
        return (await asyncio.to_thread(checks.alerts, self.settings.alerts.command, last),)


async def _patiently(name: str, check: Check) -> tuple[Finding, ...]:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await check()
    except TimeoutError:
        return (checks.warning(name, f"no answer within {_PATIENCE:g} s", "look again; the agent's log may say more"),)
    except (Transient, Terminal, EngineError, RegistryUnavailable) as failure:
        return (checks.warning(name, f"could not be looked at: {failure.message}", "mend that first"),)
    except (OSError, LookupError, ValueError, TypeError) as error:
        found = f"could not be looked at: {type(error).__name__}: {error}"
        return (checks.warning(name, found, "the agent may lack a right, or podman may be one that it does not know"),)


async def _space(check: str, folder: Path) -> Finding:
    return checks.room(check, folder, await asyncio.to_thread(os.statvfs, folder))


def _rootless(socket: Path, run_root: str) -> tuple[Finding, ...]:
    user = pwd.getpwuid(socket.stat().st_uid)
    return (
        checks.subordinate_ids(user, (Path("/etc/subuid"), Path("/etc/subgid"))),
        checks.lingering(user, Path("/run/systemd/system"), Path("/var/lib/systemd/linger")),
        checks.runtime_folder(user, run_root),
        checks.tunnel(Path("/dev/net/tun")),
    )


async def _output(*command: str) -> str:
    """What a command prints; empty where it is not there or fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    printed, _ = await process.communicate()
    return printed.decode(errors="replace").strip() if process.returncode == 0 else ""
