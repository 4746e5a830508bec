"""`make demo`: a definition becomes an answered request, and every drift is corrected before your eyes.

It has a host of its own below .local/demo, so that one started by `make up` is left alone. It ends with 0 only when
every step was verified.
"""

import json
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import grpc

from api.gen.mc_proxy.v1 import admin_pb2
from stack import images, processes, web
from stack.__main__ import LOCAL, host_at
from stack.admin import Table
from stack.host import ZONE, Host
from stack.processes import StackError
from stack.story import Story

_EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples" / "services"
_HELLO: Final = f"hello.svc.{ZONE}"
_TLS: Final = f"tls.{ZONE}"
_CONTAINER: Final = "hello-web"
_ORDER: Final = ["routes", "containers", "certs", "ports"]
_BLUE_GREEN: Final = '\n[components.update]\nstrategy = "blue-green"\n'
_BROKEN: Final = 'cmd = ["/bin/sh", "-c", "echo cannot open database; exit 3"]'
_FOREIGN: Final = "stranger.example.test"


@dataclass(frozen=True)
class Demo:
    """The five parts, on one host."""

    host: Host
    story: Story

    def run(self) -> None:
        """Tells the whole story. Raises StackError at the first thing that is not as it should be."""
        self.start()
        self.apply()
        self.request()
        self.drift()
        self.change()
        self.delete()

    def start(self) -> None:
        """Part 1: the real parts, below one folder."""
        story, host = self.story, self.host
        kind = "rootless" if host.podman.rootless else "rootful"
        story.part(1, f"A host of its own, below {host.layout.root}")
        with story.timed(f"podman's API service answers ({kind}, storage and networks of its own)"):
            host.podman.start()
        host.configure()
        with story.timed("mcproxyd answers: mc-proxy's admin API, served over HAProxy"):
            host.start_proxy()
        with story.timed(f"mcp-agent is ready (node {host.node})"):
            host.start_agent()

    def apply(self) -> None:
        """Part 2: an image, and a definition that becomes ready."""
        story, host = self.story, self.host
        story.part(2, "One definition, applied")
        with story.timed("images built from Debian's own busybox and haproxy: no registry is needed"):
            images.build(host.podman, (images.HELLO, images.HELLO_NEXT, images.TLS))
        definition = self._definition("hello.toml")
        story.show("cat", str(definition))
        began = time.monotonic()
        story.show("mcp", "apply", "-f", str(definition))
        host.fetch(_HELLO)
        story.say(f"From the command's start to an answered request: {time.monotonic() - began:.2f} s.")

    def request(self) -> None:
        """Part 3: verified TLS by hostname, terminated by the proxy and passed through to a container."""
        story, host = self.story, self.host
        story.part(3, "One listener: TLS ended by the proxy, and TLS passed through")
        story.say("The proxy ends TLS (l7), with a certificate of the agent's CA:")
        story.verify("the container answered over verified TLS", "mcp-hello v1.0.0" in self._curl(_HELLO, host.ca_file))
        definition = self._definition("tls.toml")
        story.say("A second service ends TLS itself (l4), with a certificate of its own:")
        story.show("mcp", "apply", "-f", str(definition))
        trusted = images.tls_certificate(host.podman)
        story.verify("TLS reached the container unopened", "mcp-tls v1.0.0" in self._curl(_TLS, trusted))
        story.verify("the first service still answers on the same listener", "mcp-hello" in host.fetch(_HELLO))
        story.show("mcp", "status")

    def drift(self) -> None:
        """Part 4: harm from outside, corrected and timed."""
        story, host = self.story, self.host
        podman, table = host.podman, Table(host.proxy_socket)
        listener = table.listener_of(_HELLO)
        certificate, key = host.cert_dir / "hello.pem", host.cert_dir / "hello.key"
        story.part(4, "Drift: harm done behind the agent's back, until requests are answered again")
        story.drift("container killed", partial(self._kill, _CONTAINER), self._answers)
        story.drift("container removed", lambda: podman.run("rm", "--force", "--time", "0", _CONTAINER), self._answers)
        story.drift("route removed", lambda: table.remove(listener, _HELLO), self._answers)
        story.drift("certificate deleted", certificate.unlink, lambda: certificate.exists() and key.exists())
        story.verify("the new certificate is served and trusted", self._answers())
        story.drift("proxy restarted with an empty table", self._empty_the_proxy, self._all_answer)
        story.drift("all of podman's containers wiped", podman.wipe, self._all_answer)
        story.summary()

    def change(self) -> None:
        """Part 5, first half: a new version rolls, and nothing new changes nothing."""
        story, host = self.story, self.host
        story.part(5, "Change, no change, and the end")
        definition = self._definition("hello.toml")
        before = self._container(_CONTAINER)
        story.verify("applied again it is unchanged", "unchanged" in story.read("mcp", "apply", "-f", str(definition)))
        story.verify("and so is the container", before == self._container(_CONTAINER))
        newer = self._folder / "hello-next.toml"
        newer.write_text(definition.read_text().replace(images.HELLO, images.HELLO_NEXT) + _BLUE_GREEN)
        story.say("A new version takes over beside the old one, while somebody asks for the page again and again:")
        with web.Visitor(host.address, _HELLO, host.ca_file) as visitor:
            story.show("mcp", "apply", "-f", str(newer))
            story.verify("the new version answers", "mcp-hello v1.0.1" in host.fetch(_HELLO))
            web.wait_for(
                lambda: self._ids("name=^hello-web") - {before} == self._ids(f"name=^{_CONTAINER}$"),
                seconds=30,
                what="the end of the old container",
            )
        asked = f"{len(visitor.answers)} requests, longest gap {visitor.longest_gap * 1000:.0f} ms"
        story.verify(f"{asked}, none failed", bool(visitor.answers) and not visitor.failures)
        self.fail(newer)
        story.show("mcp", "diff", "-f", str(newer))
        story.show("mcp", "events", "hello")

    def fail(self, definition: Path) -> None:
        """Part 5, in between: an update that fails leaves what serves alone, and says why."""
        story, host = self.story, self.host
        serving = self._container(_CONTAINER)
        broken = self._folder / "hello-broken.toml"
        broken.write_text(definition.read_text().replace("volumes = []", f"volumes = []\n{_BROKEN}"))
        story.say("One that cannot start is given up, and the old one goes on:")
        said = story.fails("mcp", "apply", "-f", str(broken))
        story.verify("the reason is told, with the container's last words", "cannot open database" in said)
        story.verify("the old version answers", "mcp-hello v1.0.1" in host.fetch(_HELLO))
        story.verify("from the same container", serving == self._container(_CONTAINER))
        story.show("mcp", "apply", "-f", str(definition))

    def delete(self) -> None:
        """Part 5, second half: all of ours goes, in order, and nothing of anybody else's."""
        story, host = self.story, self.host
        table = Table(host.proxy_socket)
        listener = table.listener_of(_HELLO)
        host.podman.run("run", "--detach", "--name", "stranger", "--network", host.network, images.HELLO)
        table.add(listener, admin_pb2.Route(hostname=_FOREIGN, backend="127.0.0.1:9", mode="l4"))
        stranger = self._container("stranger")
        story.say("A container and a route that are not ours are put beside them.")
        story.show("mcp", "delete", "hello", "passthrough")
        containers = host.podman.run("ps", "--all", "--quiet", "--no-trunc").split()
        story.show("mcp", "events", "hello", "--lines", "6")
        story.verify("route, container, certificate, port: it went in that order", self._order_of_going() == _ORDER)
        story.verify("no container but the stranger's is left", containers == [stranger])
        story.verify("no route but the stranger's is left", table.hostnames() == [_FOREIGN])
        story.verify("no certificate is left", not list(host.cert_dir.glob("*")))
        story.verify("nothing listens for it any more", not self._answers())
        status = host.mcp("status", "-o", "json")
        story.verify("the agent knows of no service", status.returncode == 0 and _HELLO not in status.stdout)

    @property
    def _folder(self) -> Path:
        """Where definitions lie that the demo writes itself."""
        folder = self.host.layout.root / "definitions"
        folder.mkdir(exist_ok=True)
        return folder

    def _definition(self, name: str) -> Path:
        """An example as it is, or a copy for another listener when the example's port was taken on this machine."""
        example = _EXAMPLES / name
        port = f"port = {self.host.ports.listener}"
        if port in example.read_text():
            return example
        copy = self._folder / name
        copy.write_text(re.sub(r"port = \d+", port, example.read_text()))
        return copy

    def _order_of_going(self) -> list[str]:
        """The reconcilers that took something of hello away, in the order in which they did."""
        told = json.loads(self.host.mcp("events", "hello", "--lines", "6", "-o", "json").stdout)
        gone = [event["actor"] for event in told["events"] if event["kind"] in {"withdrew", "removed", "released"}]
        return list(dict.fromkeys(gone))

    def _curl(self, hostname: str, ca: Path) -> str:
        address, port = self.host.address
        resolve = f"{hostname}:{port}:{address}"
        url = f"https://{hostname}:{port}/"
        return self.story.read("curl", "--silent", "--show-error", "--cacert", str(ca), "--resolve", resolve, url)

    def _kill(self, name: str) -> None:
        pid = int(self.host.podman.run("inspect", "--format", "{{.State.Pid}}", name))
        if process := processes.identify(pid):
            processes.end(process, sig=signal.SIGKILL)

    def _answers(self) -> bool:
        return web.answers(self.host.address, _HELLO, self.host.ca_file)

    def _all_answer(self) -> bool:
        return self._answers() and web.answers(self.host.address, _TLS, images.tls_certificate(self.host.podman))

    def _ids(self, which: str) -> set[str]:
        return set(self.host.podman.run("ps", "--all", "--quiet", "--no-trunc", "--filter", which).split())

    def _container(self, name: str) -> str:
        return self.host.podman.run("inspect", "--format", "{{.Id}}", name).strip()

    def _empty_the_proxy(self) -> None:
        self.host.stop_proxy()
        self.host.forget_routes()
        self.host.start_proxy()


def main() -> int:
    """Tells the story and takes the host away again; returns the exit code."""
    host = host_at(LOCAL / "demo")
    began = time.monotonic()
    host.down()
    host.layout.make()
    story = Story(env=host.environment | host.names)
    try:
        Demo(host, story).run()
    except (StackError, OSError, grpc.RpcError) as error:
        shutil.copytree(host.layout.log, LOCAL / "demo-log", dirs_exist_ok=True)
        story.fail(f"{error} (see {LOCAL / 'demo-log'})")
        return 1
    finally:
        host.down()
    story.end(time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
