"""Images, from a real registry that wants to know who asks, that is slow, that lies, and that is not there."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.conditions import ConditionType, Reason
from api.service import Service
from reconcilers.containers.images.collection import CollectionSettings
from reconcilers.containers.images.credentials import Credentials, Login
from reconcilers.containers.images.presence import ImageSettings
from stack import images
from stack.host import Host
from stack.podman import PodmanHost
from stack.registry import PASSWORD, USER, ImageRegistry, image_registry
from stack.web import free_port
from tests.system.containers.node import Node, answer, running_node, web
from tests.system.faults import Fault, FaultySocket, breaks_off, fails_after_the_work, hangs

Run = Callable[..., AbstractAsyncContextManager[Node]]

PLAIN = Login(tls_verify=False)
"""How a registry is reached that speaks no TLS and asks nobody who they are."""


@pytest.fixture(scope="module")
def shelf() -> Iterator[ImageRegistry]:
    """A registry for everybody."""
    with image_registry() as registry:
        yield registry


@pytest.fixture
def front(shelf: ImageRegistry) -> Iterator[FaultySocket]:
    """Stands before it, and misbehaves."""
    with _fronting(shelf) as front:
        yield front


@pytest.fixture(scope="module", params=["basic", "token"])
def locked(request: pytest.FixtureRequest) -> Iterator[ImageRegistry]:
    """A registry that wants a name and a password."""
    with image_registry(request.param) as registry:
        yield registry


@pytest.fixture
def run(podman: PodmanHost, folder: Path) -> Run:
    """Runs a node whose agent is told of registries, and of what it does with images."""

    @asynccontextmanager
    async def running(logins: dict[str, Login], auth_file: Path | None = None, **settings: Any) -> AsyncIterator[Node]:
        how = ImageSettings(Credentials(logins, auth_file), **settings)
        async with running_node(podman, folder, images=how) as node:
            yield node
            await node.delete_all()

    return running


def password(folder: Path, text: str = PASSWORD) -> Path:
    """A file with it, as an editor leaves one."""
    path = folder / "password"
    path.write_text(f"  {text}\n")
    return path


def auth_json(registry: ImageRegistry) -> str:
    """A file of docker's and podman's that lets into the registry."""
    coded = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return json.dumps({"auths": {registry.address: {"auth": coded}}})


def serves(digest: str, service: Service) -> bool:
    """Whether the first container is of that image, and ready."""
    return service.components[0].digest == digest and service.components[0].ready


def containers_message(service: Service) -> str:
    """What the condition says."""
    condition = service.condition(ConditionType.CONTAINERS_RUNNING)
    return condition.message if condition else ""


async def test_an_image_behind_a_password_comes_with_its_digest_and_the_password_is_told_nobody(
    podman: PodmanHost, folder: Path, run: Run, locked: ImageRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = locked.publish(podman, f"shop/{locked.auth}:v1", images.hello(f"locked {locked.auth}"))
    async with run({locked.address: Login(USER, str(password(folder)), tls_verify=False)}) as node:
        await node.apply(web("shop", reference))
        service = await node.until_ready("shop")
        assert answer(service) == f"mcp-hello locked {locked.auth}\n"
        (component,) = service.components
        shown = node.podman("image", "inspect", reference, "--format", "{{.Digest}}")
        assert component.digest == shown.strip()
        (brought,) = await node.registry.pulled_images()
        assert (brought.reference, brought.digest) == (reference, component.digest)
        assert brought.image_id == node.inspect("shop-web", "{{.Image}}")
        told = json.dumps([service.model_dump(mode="json"), [e.message for e in await node.registry.events("shop")]])
    said = capfd.readouterr()
    coded = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert not any(secret in text for secret in (PASSWORD, coded) for text in (told, said.out, said.err))


async def test_a_rootless_engine_is_given_the_password_too(rootless_podman: PodmanHost, folder: Path) -> None:
    with image_registry("token") as registry:
        reference = registry.publish(rootless_podman, "rootless:v1", images.hello("rootless"))
        login = Login(USER, str(password(folder)), tls_verify=False)
        how = ImageSettings(Credentials({registry.address: login}))
        async with running_node(rootless_podman, folder, images=how) as node:
            await node.apply(web("shop", reference))
            assert answer(await node.until_ready("shop")) == "mcp-hello rootless\n"
            await node.delete_all()


async def test_a_wrong_password_is_one_sentence_and_the_right_one_counts_as_soon_as_it_is_written(
    podman: PodmanHost, folder: Path, run: Run, locked: ImageRegistry
) -> None:
    reference = locked.publish(podman, f"rotated/{locked.auth}:v1", images.hello(f"rotated {locked.auth}"))
    path = password(folder, "stale")
    async with run({locked.address: Login(USER, str(path), "token_file", tls_verify=False)}) as node:
        await node.apply(web("shop", reference))
        condition = await node.until_reason("shop", Reason.IMAGE_PULL_FAILED)
        assert condition.message == (
            f'{reference} cannot be pulled: {locked.address} does not let user "ann" in with the password of '
            f'registries."{locked.address}".token_file'
        )
        password(folder)
        assert answer(await node.until_ready("shop")) == f"mcp-hello rotated {locked.auth}\n"


async def test_who_says_nothing_is_told_where_to_say_it(podman: PodmanHost, run: Run, locked: ImageRegistry) -> None:
    reference = locked.publish(podman, f"anonymous/{locked.auth}:v1", images.hello("anonymous"))
    async with run({locked.address: PLAIN}) as node:
        await node.apply(web("shop", reference))
        condition = await node.until_reason("shop", Reason.IMAGE_PULL_FAILED)
        assert condition.message == (
            f"{reference} cannot be pulled: {locked.address} asks who we are: say it in "
            f"registries.\"{locked.address}\" of the agent's settings or in podman's auth.json"
        )


@pytest.mark.parametrize("locked", ["token"], indirect=True)
async def test_the_files_of_docker_and_podman_are_heeded(
    podman: PodmanHost, folder: Path, run: Run, locked: ImageRegistry
) -> None:
    of_the_agent = folder / "auth.json"
    of_podman = [podman.storage / "home" / place for place in (".config/containers/auth.json", ".docker/config.json")]
    async with run({locked.address: PLAIN}, of_the_agent) as node:
        for number, path in enumerate((of_the_agent, *of_podman)):
            of_the_agent.write_text('{"auths": {}}')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(auth_json(locked))
            try:
                reference = locked.publish(podman, f"file/{locked.auth}:v{number}", images.hello(f"file {number}"))
                await node.apply(web(f"shop{number}", reference))
                await node.until_ready(f"shop{number}")
            finally:
                path.unlink()


async def test_tls_leads_to_a_ca_that_podman_was_told_of(podman: PodmanHost, run: Run) -> None:
    with image_registry(tls=True) as registry:
        reference = registry.publish(podman, "tls:v1", images.hello("tls"))
        async with run({}) as node:
            await node.apply(web("shop", reference))
            condition = await node.until_reason("shop", Reason.IMAGE_PULL_FAILED)
            assert "certificate signed by unknown authority" in condition.message
            trusted = podman.storage / "home/.config/containers/certs.d" / registry.address
            trusted.mkdir(parents=True)
            (trusted / "ca.crt").write_bytes(registry.ca_file.read_bytes())
            await node.until_ready("shop")


async def test_an_image_that_is_never_pulled_must_be_there(podman: PodmanHost, run: Run, shelf: ImageRegistry) -> None:
    reference = shelf.publish(podman, "never:v1", images.hello("never"))
    async with run({shelf.address: PLAIN}) as node:
        await node.apply(web("shop", reference, pull="never"))
        condition = await node.until_reason("shop", Reason.IMAGE_PULL_FAILED)
        assert condition.message == f'{reference} is not on the node, and its definition says pull = "never"'
        images.load(podman, reference, images.hello("never"))
        service = await node.until_ready("shop")
        assert shelf.asked_for("never:v1") == 0
        assert await node.registry.pulled_images() == ()
        podman.run("rmi", "--force", reference)
        assert service.components[0].digest


async def test_a_locally_built_image_has_no_digest(node: Node) -> None:
    await node.apply(web("shop"))
    assert (await node.until_ready("shop")).components[0].digest == ""


async def test_always_asks_before_each_creation_and_makes_do_without_an_answer(
    podman: PodmanHost, run: Run, shelf: ImageRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = shelf.publish(podman, "always:v1", images.hello("first"))
    async with run({shelf.address: PLAIN}) as node:
        await node.apply(web("shop", reference, pull="always"))
        await node.until_ready("shop")
        asked = shelf.asked_for("always:v1")
        shelf.publish(podman, "always:v1", images.hello("second"))
        node.podman("rm", "--force", "shop-web")
        second = await node.until("shop", partial(serves, shelf.digest("always:v1")))
        assert answer(second) == "mcp-hello second\n"
        assert shelf.asked_for("always:v1") == 2 * asked
        shelf.stop()
        try:
            node.podman("rm", "--force", "shop-web")
            third = await node.until("shop", lambda s: s.components[0].ready and _id(s) != _id(second))
            assert answer(third) == "mcp-hello second\n"
        finally:
            shelf.start()
    assert "registry_does_not_answer" in capfd.readouterr().out


def _id(service: Service) -> str:
    return str(service.components[0].container_id)


async def test_what_is_here_starts_and_is_made_again_without_its_registry(
    podman: PodmanHost, run: Run, shelf: ImageRegistry
) -> None:
    reference = shelf.publish(podman, "missing:v1", images.hello("missing"))
    async with run({shelf.address: PLAIN}) as node:
        await node.apply(web("shop", reference))
        first = await node.until_ready("shop")
        shelf.stop()
        try:
            node.podman("kill", "shop-web")
            await node.until("shop", lambda s: s.components[0].restarts == 1 and s.components[0].ready)
            node.podman("rm", "--force", "shop-web")
            again = await node.until("shop", lambda s: s.components[0].ready and _id(s) != _id(first))
            assert again.components[0].digest == first.components[0].digest
        finally:
            shelf.start()


async def test_a_tag_that_moved_replaces_the_container_where_that_is_asked_for(
    podman: PodmanHost, run: Run, shelf: ImageRegistry
) -> None:
    reference = shelf.publish(podman, "moving:v1", images.hello("before"))
    async with run({shelf.address: PLAIN}, check=0.5) as node:
        await node.apply(web("one", reference, pull="newer"))
        await node.apply(web("two", reference, pull="newer"))
        await node.apply(web("three", reference))
        before = [await node.until_ready(name) for name in ("one", "two", "three")]
        shelf.publish(podman, "moving:v1", images.hello("after"))
        for name in ("one", "two"):
            after = await node.until(name, partial(serves, shelf.digest("moving:v1")))
            assert answer(after) == "mcp-hello after\n"
            await node.until_event(name, "replaced")
            events = await node.registry.events(name)
            assert [e.message for e in events if e.kind == "replaced"] == [f"{name}-web: the tag {reference} moved"]
        assert answer(await node.until_ready("three")) == "mcp-hello before\n"
        assert _id(await node.service("three")) == _id(before[2])


async def test_how_far_a_pull_is_is_seen_and_no_event(
    podman: PodmanHost, run: Run, shelf: ImageRegistry, front: FaultySocket
) -> None:
    shelf.publish(podman, "slow:v1", images.hello("slow"))
    reference = f"{_address(front)}/slow:v1"
    gate = threading.Event()
    async with run({_address(front): PLAIN}) as node:
        with front.misbehaving("GET /v2/slow/blobs/", _stops_midway(gate)):
            await node.apply(web("shop", reference))
            waiting = await node.until("shop", lambda s: containers_message(s).endswith("layer begun"))
            assert containers_message(waiting) == f"the image {reference} is being pulled: 1 layer begun"
            assert {event.kind for event in await node.registry.events("shop")} == {"created"}
            gate.set()
            await node.until_ready("shop")


async def test_a_registry_that_does_not_answer_is_said_to_be_awaited_and_others_are_pulled_from(
    podman: PodmanHost, run: Run, shelf: ImageRegistry, front: FaultySocket
) -> None:
    reference = shelf.publish(podman, "quick:v1", images.hello("quick"))
    async with run({_address(front): PLAIN, shelf.address: PLAIN}) as node:
        with front.misbehaving("GET", hangs):
            for number in range(5):
                await node.apply(web(f"hung{number}", f"{_address(front)}/hung:v{number}"))
            await node.until("hung0", lambda s: containers_message(s).endswith("waits for its registry"))
            await node.apply(web("shop", reference))
            await node.until_ready("shop")


@pytest.mark.parametrize("fault", [breaks_off, fails_after_the_work])
async def test_what_a_registry_does_not_bring_to_an_end_is_asked_for_again(
    podman: PodmanHost, run: Run, shelf: ImageRegistry, front: FaultySocket, fault: Fault
) -> None:
    shelf.publish(podman, "bad:v1", images.hello(f"bad {fault.__name__}"))
    reference = f"{_address(front)}/bad:v1"
    async with run({_address(front): PLAIN}) as node:
        with (
            front.misbehaving("GET /v2/bad/manifests/", fault, times=1) as manifests,
            front.misbehaving("GET /v2/bad/blobs/", fault, times=2) as blobs,
        ):
            await node.apply(web("shop", reference))
            assert answer(await node.until_ready("shop")) == f"mcp-hello bad {fault.__name__}\n"
        assert (manifests(), blobs()) == (1, 2)


async def test_an_agent_that_ends_ends_its_pulls(
    podman: PodmanHost, run: Run, shelf: ImageRegistry, front: FaultySocket
) -> None:
    shelf.publish(podman, "cut:v1", images.hello("cut"))
    reference = f"{_address(front)}/cut:v1"
    gate = threading.Event()
    with front.misbehaving("GET /v2/cut/blobs/", _stops_midway(gate)):
        async with run({_address(front): PLAIN}) as node:
            await node.apply(web("shop", reference))
            await node.until("shop", lambda s: containers_message(s).endswith("layer begun"))
        gate.set()
    async with run({_address(front): PLAIN}) as node:
        await node.apply(web("again", reference))
        await node.until_ready("again")


async def test_what_nothing_uses_any_more_is_removed_and_nothing_else(
    podman: PodmanHost, run: Run, shelf: ImageRegistry
) -> None:
    references = [shelf.publish(podman, f"old:v{n}", images.hello(f"old {n}")) for n in range(4)]
    images.load(podman, f"localhost/kept-{shelf.port}:v1", images.hello("not ours"))
    collection = CollectionSettings(timedelta(seconds=0.5), keep_last=1, every=0.3)
    async with run({shelf.address: PLAIN}, collection=collection) as node:
        for number, reference in enumerate(references):
            await node.apply(web(f"shop{number}", reference))
            await node.until_ready(f"shop{number}")
        podman.run("tag", references[1], f"localhost/tagged-{shelf.port}:v1")
        for number in range(3):
            await node.delete(f"shop{number}")
            await node.until_containers_gone(f"shop{number}")
        async with asyncio.timeout(10):
            while references[0] in [image.reference for image in await node.registry.pulled_images()]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        left = set(podman.run("images", "--format", "{{.Repository}}:{{.Tag}}").split())
        # What was used last is for a rollback, and what somebody gave another name is his.
        assert left & set(references) == {references[1], references[2], references[3]}
        assert f"localhost/kept-{shelf.port}:v1" in left
        assert answer(await node.until_ready("shop3")) == "mcp-hello old 3\n"


def test_whoever_applies_sees_how_far_the_image_is(
    podman: PodmanHost, folder: Path, make_host: Callable[..., Host]
) -> None:
    gate = threading.Event()
    with image_registry("token") as registry, _fronting(registry) as front:
        registry.publish(podman, "watched:v1", images.hello("watched"))
        reference = f"{_address(front)}/watched:v1"
        how = f'token_file = "{password(folder)}"\ntls_verify = false\n'
        host = make_host(settings=f'[registries."{_address(front)}"]\n{how}')
        definition = f'name = "hello"\n[[components]]\nname = "hello"\nimage = "{reference}"\nvolumes = []\n'
        with front.misbehaving("GET /v2/watched/blobs/", _stops_midway(gate)), _applying(host, definition) as lines:
            told = next(line for line in lines if "is being pulled" in line)
            assert told == f"hello waiting: Progressing: the image {reference} is being pulled: 1 layer begun\n"
            gate.set()
            assert "hello ready in" in "".join(lines)
    assert '"digest": "sha256:' in host.mcp("status", "hello", "-o", "json").stdout


@contextmanager
def _applying(host: Host, definition: str) -> Iterator[Iterator[str]]:
    """What `mcp apply` prints, line by line."""
    command = [Path(sys.executable).parent / "mcp", "apply", "-f", "-"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=host.environment | host.names, text=True, **streams) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(definition)
        process.stdin.close()
        yield iter(process.stdout)


@contextmanager
def _fronting(registry: ImageRegistry) -> Iterator[FaultySocket]:
    front = FaultySocket(("127.0.0.1", free_port()), ("127.0.0.1", registry.port))
    front.start()
    yield front
    front.stop()


def _address(front: FaultySocket) -> str:
    assert isinstance(front.path, tuple)
    return f"localhost:{front.path[1]}"


def _stops_midway(gate: threading.Event) -> Fault:
    """Answers in full, but the second half of a layer only once the gate is open."""

    def wait(client: socket.socket, ask: Callable[[], bytes]) -> None:
        whole = ask()
        # What is short is the image's configuration, which comes first.
        half = len(whole) // 2 if len(whole) > 10_000 else len(whole)
        client.sendall(whole[:half])
        gate.wait(20 if whole[half:] else 0)
        client.sendall(whole[half:])

    return wait
