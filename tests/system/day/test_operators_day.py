"""The operator's whole day, played against real parts: from a fresh host to one that was wiped and came back."""

import re
import shutil
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from stack import images, processes, web
from stack.host import ZONE
from tests import quadlet
from tests.system.agent.rig import Rig
from tests.system.day.workstation import Workstation

pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Day:
    """One host, one workstation, and a service called `shop`."""

    rig: Rig
    at: Workstation

    def agent(self, *arguments: str | Path) -> str:
        """What `mcp-agent` prints on the node."""
        command = [Path(sys.executable).parent / "mcp-agent", *arguments, "-c", self.rig.host.agent_config]
        environment = self.rig.host.environment | self.rig.variables
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        sys.stdout.write(f"# mcp-agent {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until_it_serves(self, text: str, path: str = "/") -> None:
        """Returns once the shop answers so, through the proxy."""
        web.wait_for(partial(self._serves, text, path), seconds=20, what=f"{text!r} at {path}")

    def _serves(self, text: str, path: str) -> bool:
        host = self.rig.host
        with suppress(OSError, processes.StackError):
            return text in web.fetch(host.address, f"shop.svc.{ZONE}", host.ca_file, path, seconds=0.5)
        return False

    def born(self, container: str) -> str:
        """Which container it is, and since when it runs."""
        return self.rig.inspect("{{.Id}} {{.State.StartedAt}}", container)

    # The hours of the day

    def comes_in(self) -> None:
        """Adds the node, logs in as its administrator, makes a token for daily use, and logs in with that."""
        host, at = self.rig.host, self.at
        assert "there is no mcp.toml" in at.mcp("status", status=2)
        at.mcp("node", "add", host.node, self.rig.variables["MCP_API_LISTEN"], "--ca-file", host.ca_file)
        assert "mcp login" in at.mcp("status", status=5)
        at.mcp("login", "--token-file", "-", stdin=self.agent("token", "bootstrap"))
        assert "admin" in at.mcp("whoami")
        daily = at.mcp("token", "create", "ann", "--role", "operator", "-q").strip()
        (at.home / "daily").write_text(f"  {daily}\n\n")
        at.mcp("login", "--token-file", "daily")
        assert "ann" in at.mcp("whoami")
        assert "admin" in at.mcp("token", "list", status=5), "says which role it takes"
        assert "problem" not in at.mcp("doctor")

    async def writes_a_definition(self) -> None:
        """Begins one, edits it until it is right, and has it converge, looking on."""
        host, at = self.rig.host, self.at
        at.mcp("service", "new", "shop", "--image", images.HELLO)
        folder = f'volumes = ["{host.layout.root}/srv/shop/page:/www/page:ro"]'
        wrong = f"s/port = 8443/port = 84430/; s/l4/l7/; s|^image.*|&\\n{folder}|"
        editor = at.editor(wrong, f"s/port = 84430/port = {host.ports.listener}/")
        assert "mcp deploy shop" in at.mcp("service", "edit", "shop", editor=editor)
        assert "#!" not in at.definition("shop").read_text()
        at.mcp("service", "validate", at.definition("shop"))
        async with at.screen("deploy", "shop") as screen:
            assert await screen.end() == 1
        assert "is not on the node: make it there, or push a file into it" in screen.text
        self.pushes("spring")
        self.until_it_serves("mcp-hello v1.0.0")
        self.until_it_serves("spring", "/page/")

    def pushes(self, content: str, *options: str) -> None:
        """Pushes the page."""
        (self.at.home / "page.html").write_text(content)
        self.at.mcp("push", "page.html", "shop", "page/index.html", "--managed", *options)

    async def is_called_away(self) -> None:
        """Interrupts a rollout that takes its time: it goes on, and is there when somebody looks again."""
        at = self.at
        wait = 'cmd = ["/bin/sh", "-c", "sleep 1; exec /bin/serve"]'
        slow = at.definition("shop").read_text().replace('"shop"', '"slow"')
        at.definition("slow").write_text(re.sub("^volumes.*", f"volumes = []\n{wait}", slow, flags=re.MULTILINE))
        async with at.screen("deploy", "slow", size=(60, 10)) as screen:
            await screen.until("✓✓✓…")
            screen.press(b"\x03")
            assert await screen.end() == 130
        assert "the rollout of slow goes on; mcp status slow shows it" in " ".join(screen.text.split())
        await self.rig.until_ready("slow")
        assert "slow on" in at.mcp("status", "slow")
        at.mcp("delete", "slow")
        at.definition("slow").unlink()

    async def changes_it(self) -> None:
        """Applies unchanged, edits, pushes, looks around."""
        at, container = self.at, "shop"
        before = self.born(container)
        assert "unchanged" in at.mcp("apply", "-f", at.services)
        assert self.born(container) == before
        editor = at.editor(f"s|{images.HELLO}|{images.HELLO_NEXT}|")
        async with at.screen("service", "edit", "shop", "--deploy", editor=editor) as screen:
            assert await screen.end() == 0
        assert "✓ containers" in screen.text
        assert "shop ready in" in screen.text
        self.until_it_serves("mcp-hello v1.0.1")
        before = self.born(container)
        self.pushes("summer", "--restart")
        self.until_it_serves("summer", "/page/")
        assert self.born(container) != before
        at.mcp("pull", "shop", "page/index.html", "back.html")
        assert (at.home / "back.html").read_text() == "summer"
        for words in (["ps"], ["list"], ["routes"], ["certs"], ["events", "shop"], ["status", "shop"]):
            assert "shop" in at.mcp(*words)
        assert "shop unchanged" in at.mcp("diff", "-f", at.definition("shop"))

    def goes_back(self) -> None:
        """Restarts, then rolls image and page back to the first generation, and the file on the workstation, too."""
        at, container = self.at, "shop"
        before = self.born(container)
        at.mcp("restart", "shop")
        assert self.born(container) != before
        at.mcp("service", "history", "shop")
        at.mcp("service", "rollback", "shop", "1")
        self.until_it_serves("mcp-hello v1.0.0")
        self.until_it_serves("spring", "/page/")
        at.definition("shop").write_text(at.mcp("export", "shop"))
        assert "unchanged" in at.mcp("deploy", "shop")

    def adopts_and_prunes(self) -> None:
        """Takes over what runs already, lets go of it again; a stranger beside it is never touched."""
        at, podman = self.at, self.rig.podman
        by_hand = ["run", "--detach", "--network", podman.make_network()]
        podman.run(*by_hand, "--name", "legacy", images.HELLO)
        podman.run(*by_hand, "--name", "stranger", images.HELLO)
        try:
            before = self.born("legacy"), self.born("stranger")
            at.mcp("adopt", "legacy", "--write", at.definition("legacy"))
            assert "unchanged" in at.mcp("deploy", "legacy")
            assert (self.born("legacy"), self.born("stranger")) == before
            at.definition("legacy").unlink()
            assert "legacy" in at.mcp("sync", "--prune", "--dry-run")
            assert self.born("legacy") == before[0]
            at.mcp("sync", "--prune", "--yes")
            names = podman.run("ps", "--format", "{{.Names}}").split()
            assert "legacy" not in names
            assert {"shop", "stranger"} <= set(names)
            self._prunes_nothing_for_an_empty_folder()
        finally:
            podman.run("rm", "--force", "--time", "0", "--ignore", "legacy", "stranger")

    def _prunes_nothing_for_an_empty_folder(self) -> None:
        aside = self.at.home / "aside"
        self.at.services.rename(aside)
        self.at.services.mkdir()
        self.at.mcp("sync", "--prune", "--yes", status=2)
        self.at.services.rmdir()
        aside.rename(self.at.services)
        self.until_it_serves("mcp-hello v1.0.0")

    async def leaves_and_returns(self) -> None:
        """Takes the service elsewhere, as units that run it without MCP, and back."""
        at, podman = self.at, self.rig.podman
        port = (await self.rig.get("shop")).ports[0].port
        at.mcp("export", "shop", "--format", "quadlet", "--into", "units")
        at.mcp("undeploy", "shop")
        assert "active = false" in at.definition("shop").read_text()
        units = {path.name: quadlet.parse(path.read_text()) for path in (at.home / "units").iterdir()}
        network = next(name for name in units if name.endswith(".network"))
        podman.run(*quadlet.podman_run(units["shop.container"], {network: podman.make_network()}))
        try:
            web.wait_for(lambda: "v1.0.0" in _plain(port), seconds=10, what="the service without MCP")
        finally:
            podman.run("rm", "--force", "--time", "0", "shop")
        assert "mcp start shop" in at.mcp("deploy", "shop")
        at.mcp("start", "shop")
        assert "active = true" in at.definition("shop").read_text()
        self.pushes("autumn", "--restart")
        self.until_it_serves("autumn", "/page/")

    def loses_everything(self, disk: Path) -> None:
        """Snapshot, wipe, restore: nothing moves until it is told to, and then all is as it was."""
        rig, at = self.rig, self.at
        self.agent("snapshot", "--to", disk)
        rig.kill_agent()
        rig.remove_containers()
        shutil.rmtree(rig.host.layout.root / "agent")
        shutil.rmtree(rig.host.layout.root / "srv")
        self.agent("restore", max(disk.iterdir()))
        rig.start_agent()
        assert "Suspended" in at.mcp("status")
        at.mcp("reconcile", "shop")
        assert rig.containers() == []
        at.mcp("resume", "--all")
        self.until_it_serves("mcp-hello v1.0.0")
        self.until_it_serves("autumn", "/page/")

    def goes_home(self) -> None:
        """Leaves nothing running, and no token behind; what was done is written down, and cannot be denied."""
        at = self.at
        at.mcp("delete", "shop")
        assert self.rig.containers() == []
        written = at.mcp("audit", "-n", "200")
        for method in ("ApplyService", "PushFile", "RollbackService", "AdoptService", "DeleteService", "ResumeService"):
            assert method in written
        assert "ann" in written
        at.mcp("logout")
        assert "mcp login" in at.mcp("status", status=5)


def _plain(port: int) -> str:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
        return str(answer.read().decode())
    return ""


async def test_a_day(rig: Rig, workstation: Workstation, tmp_path: Path) -> None:
    day = Day(rig, workstation)
    day.comes_in()
    await day.writes_a_definition()
    await day.is_called_away()
    await day.changes_it()
    day.goes_back()
    day.adopts_and_prunes()
    await day.leaves_and_returns()
    day.loses_everything(tmp_path / "disk")
    day.goes_home()
