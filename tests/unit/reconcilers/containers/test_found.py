"""What a container is said to be, in the words of a definition. The shapes are those of podman 4.3.1."""

import copy
from typing import Any

import pytest

from api.spec import ComponentSpec, HostNamespace, RestartPolicy
from reconcilers.containers.engine.found import capabilities, found, signal_text, size_text

IMAGE: dict[str, Any] = {
    "User": "",
    "Config": {
        "Env": ["VERSION=v1.0.0", "PATH=/opt/bin:/bin"],
        "Cmd": ["/bin/serve"],
        "Labels": {"vendor": "us"},
        "Volumes": {"/cache": {}},
    },
}

PLAIN: dict[str, Any] = {
    "Name": "hello-web",
    "Path": "/bin/serve",
    "Args": ["/bin/serve"],
    "ImageName": "localhost/mcp-hello:v1.0.0",
    "Mounts": [],
    "NetworkSettings": {"Networks": {"mcpnet": {}}},
    "Config": {
        "User": "",
        "Env": [
            "PATH=/opt/bin:/bin",
            "TERM=xterm",
            "container=podman",
            "VERSION=v1.0.0",
            "HOSTNAME=34d6eff39035",
        ],
        "Cmd": ["/bin/serve"],
        "Image": "localhost/mcp-hello:v1.0.0",
        "WorkingDir": "/",
        "Entrypoint": "",
        "Labels": {"vendor": "us", "net.metacircular.mcp.component": "web"},
        "StopSignal": 15,
        "StopTimeout": 10,
    },
    "HostConfig": {
        "NetworkMode": "bridge",
        "PortBindings": {},
        "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
        "CapAdd": [],
        "CapDrop": [],
        "ExtraHosts": [],
        "PidMode": "private",
        "IpcMode": "shareable",
        "UTSMode": "private",
        "Privileged": False,
        "ReadonlyRootfs": False,
        "Tmpfs": {},
        "Memory": 0,
        "NanoCpus": 0,
        "PidsLimit": 2048,
    },
}


def inspected(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    container = copy.deepcopy(PLAIN) | rest
    container["Config"] |= config or {}
    container["HostConfig"] |= host or {}
    return container


def test_what_the_image_and_the_engine_give_is_left_out() -> None:
    assert found(PLAIN, IMAGE) == ComponentSpec(
        name="web", image="localhost/mcp-hello:v1.0.0", network="mcpnet", volumes=()
    )


def test_everything_that_was_asked_for_is_found() -> None:
    container = inspected(
        {
            "User": "1000:1000",
            "Env": [*PLAIN["Config"]["Env"], "A=1", "PASSWORD=x", "EMPTY="],
            "Cmd": ["a b", "c"],
            "Entrypoint": "/bin/x",
            "WorkingDir": "/tmp",
            "Labels": {"team": "x", "net.metacircular.mcp.service": "hello"},
            "StopSignal": 2,
            "StopTimeout": 25,
            "Secrets": [{"Name": "tok", "UID": 0, "GID": 0, "Mode": 292}],
        },
        {
            "RestartPolicy": {"Name": "no"},
            "PortBindings": {
                "23457/tcp": [{"HostIp": "127.0.0.1", "HostPort": "23456"}],
                "53/udp": [{"HostIp": "", "HostPort": "5353"}],
            },
            "CapAdd": ["CAP_NET_ADMIN"],
            "CapDrop": ["CAP_MKNOD"],
            "ExtraHosts": ["db:10.0.0.5"],
            "UTSMode": "host",
            "ReadonlyRootfs": True,
            "Tmpfs": {"/scratch": "size=67108864,mode=1777,rw,rprivate,nosuid,nodev,tmpcopyup"},
            "Memory": 64 << 20,
            "NanoCpus": 1_500_000_000,
            "PidsLimit": 50,
        },
        Path="/bin/x",
        Args=["a b", "c"],
        Mounts=[
            {"Type": "bind", "Source": "/data", "Destination": "/data", "Options": ["rbind"], "RW": False},
            {"Type": "volume", "Name": "a" * 64, "Source": "/v", "Destination": "/cache", "Options": [], "RW": True},
        ],
    )
    assert found(container, IMAGE) == ComponentSpec(
        name="hello-web",
        image="localhost/mcp-hello:v1.0.0",
        network="mcpnet",
        user="1000:1000",
        restart=RestartPolicy.NO,
        ports=("127.0.0.1:23456:23457", "5353:53/udp"),
        volumes=("/data:/data:ro",),
        cmd=("a b", "c"),
        entrypoint=("/bin/x",),
        working_dir="/tmp",
        env=("A=1", "EMPTY=", "PASSWORD=x"),
        secrets=("tok",),
        labels={"team": "x"},
        extra_hosts=("db:10.0.0.5",),
        memory="64M",
        cpus=1.5,
        pids=50,
        read_only=True,
        tmpfs=("/scratch:size=64M,mode=1777",),
        cap_drop=("MKNOD",),
        cap_add=("NET_ADMIN",),
        host_namespaces=(HostNamespace.UTS,),
        stop_signal="SIGINT",
        stop_timeout="25s",
    )


@pytest.mark.parametrize(
    ("config", "rest", "cmd", "entrypoint"),
    [
        ({"Cmd": ["x"]}, {}, ("x",), None),
        ({"Entrypoint": "/a b", "Cmd": None}, {"Path": "/a b", "Args": []}, (), ("/a b",)),
        ({"Entrypoint": "/a b c", "Cmd": ["c"]}, {"Path": "/a b", "Args": ["c", "c"]}, ("c",), ("/a b", "c")),
        ({"Entrypoint": ["/a", "b"], "Cmd": ["c"]}, {}, ("c",), ("/a", "b")),
        ({"Entrypoint": "/a b", "Cmd": ["c"]}, {"Path": "wrapped", "Args": ["c"]}, ("c",), ("/a", "b")),
    ],
)
def test_command_and_entry_point(
    config: dict[str, Any], rest: dict[str, Any], cmd: tuple[str, ...], entrypoint: tuple[str, ...] | None
) -> None:
    component = found(inspected(config, **rest), IMAGE)
    assert (component.cmd, component.entrypoint) == (cmd, entrypoint)


def test_an_entry_point_of_the_image_that_was_taken_away_is_told_from_one_that_was_left() -> None:
    image = copy.deepcopy(IMAGE)
    image["Config"]["Entrypoint"] = ["/init"]
    assert found(PLAIN, image).entrypoint == ()
    kept = inspected({"Entrypoint": "/init"}, Path="/init", Args=["/bin/serve"])
    assert (found(kept, image).cmd, found(kept, image).entrypoint) == ((), None)


def test_an_image_that_is_gone_leaves_all_to_the_container() -> None:
    component = found(PLAIN, {})
    assert (component.cmd, component.env) == (("/bin/serve",), ("PATH=/opt/bin:/bin", "VERSION=v1.0.0"))


def test_what_podman_5_says_otherwise_means_the_same() -> None:
    published = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None}
    component = found(inspected({"StopSignal": "SIGINT", "StopTimeout": 0}, {"PortBindings": published}), IMAGE)
    assert (component.ports, component.stop_signal, component.stop_timeout) == (("8080:80",), "SIGINT", "0s")


def test_a_privileged_container_has_no_list_of_capabilities() -> None:
    component = found(inspected(host={"Privileged": True, "CapDrop": ["CAP_SYS_RESOURCE"]}), IMAGE)
    assert (component.privileged, component.cap_drop) == (True, ())


def test_a_container_on_the_hosts_network_has_no_other() -> None:
    container = inspected(host={"NetworkMode": "host"}, NetworkSettings={"Networks": None})
    assert found(container, IMAGE).network == "host"


@pytest.mark.parametrize(("amount", "text"), [(0, None), (1 << 30, "1G"), (1536 << 20, "1536M"), (1000, "1000")])
def test_sizes(amount: int, text: str | None) -> None:
    assert size_text(amount) == text


def test_signals_and_capabilities_go_by_their_names() -> None:
    assert [signal_text(one) for one in (9, "15", "term", 37, "SIGRTMIN+3")] == [
        "SIGKILL",
        "SIGTERM",
        "SIGTERM",
        "37",
        "SIGRTMIN+3",
    ]
    everything = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT MKNOD"
    assert capabilities(f"CAP_{name}" for name in everything.split()) == ("ALL",)
