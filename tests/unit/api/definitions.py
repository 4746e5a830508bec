"""Definitions for tests: any at all, and one in which every field is set."""

from typing import Any

from hypothesis import strategies as st

from api.spec import (
    BuildSpec,
    ComponentSpec,
    HealthSpec,
    HostNamespace,
    PullPolicy,
    RestartPolicy,
    RouteMode,
    RouteSpec,
    ServiceSpec,
    SnapshotSpec,
    Strategy,
    Tier,
    UpdateSpec,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
versions = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", fullmatch=True)
entries = st.builds("{}={}".format, st.from_regex(r"[A-Z_][A-Z0-9_]{0,6}", fullmatch=True), texts)
images = st.builds("{}:{}".format, st.sampled_from(["hello", "reg:5000/a/b"]), versions)
ports = st.sampled_from(["8443", "53:53/udp", "127.0.0.1:18443:8443", "[::1]:1:2"])
volumes = st.sampled_from(["/srv/a:/srv/a", "/etc/x:/x:ro"])


def lists(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=3).map(tuple)


def distinct(items: st.SearchStrategy[Any], key: str, least: int) -> st.SearchStrategy[tuple[Any, ...]]:
    def identity(item: Any) -> Any:
        return getattr(item, key)

    return st.lists(items, min_size=least, max_size=3, unique_by=identity).map(tuple)


image_names = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?", fullmatch=True)
routes = st.builds(
    RouteSpec,
    name=st.none() | names,
    port=st.integers(1, 65535),
    mode=st.sampled_from(RouteMode),
    hostname=st.none() | st.sampled_from(["a.example", "x.y.z"]),
    public=st.booleans(),
)
checks = st.one_of(
    st.builds(
        HealthSpec,
        http=st.sampled_from(["/", "/healthz?a=b"]),
        status=st.none() | st.integers(100, 599),
        tls=st.booleans(),
        route=st.none() | names,
    ),
    st.builds(HealthSpec, tcp=st.just(True), port=st.none() | st.integers(1, 65535), liveness=st.booleans()),
    st.builds(
        HealthSpec,
        exec=lists(texts).filter(bool),
        interval=st.sampled_from(["500ms", "1m30s"]),
        retries=st.integers(1, 100),
        start_period=st.sampled_from(["0s", "1h"]),
    ),
)
updates = st.builds(UpdateSpec, strategy=st.sampled_from(Strategy), deadline=st.sampled_from(["5m", "90s"]))
components = st.builds(
    ComponentSpec,
    name=names,
    image=st.none() | images,
    version=st.none() | versions,
    network=st.none() | texts,
    user=st.none() | texts,
    restart=st.none() | st.sampled_from(RestartPolicy),
    pull=st.none() | st.sampled_from(PullPolicy),
    entrypoint=st.none() | lists(texts),
    working_dir=st.none() | st.just("/srv"),
    secrets=st.lists(st.sampled_from(["key", "key:/etc/key", "key:env:key"]), unique=True).map(tuple),
    labels=st.dictionaries(st.sampled_from(["a", "b c", "d.e"]), texts),
    extra_hosts=lists(st.sampled_from(["a:10.0.0.1", "b:::1"])),
    memory=st.none() | st.sampled_from(["512M", "1.5g", "1048576"]),
    cpus=st.none() | st.floats(0.01, 64),
    pids=st.none() | st.integers(1, 4194304),
    read_only=st.booleans(),
    tmpfs=lists(st.sampled_from(["/tmp", "/run:size=64M,mode=1777"])),
    cap_drop=lists(st.sampled_from(["ALL", "CAP_CHOWN"])),
    host_namespaces=lists(st.sampled_from(HostNamespace)),
    stop_signal=st.none() | st.sampled_from(["SIGINT", "term", "9"]),
    stop_timeout=st.none() | st.sampled_from(["0s", "10s"]),
    health=st.none() | checks,
    update=st.none() | updates,
    ports=lists(ports),
    volumes=st.none() | lists(volumes),
    cmd=lists(texts),
    env=lists(entries),
    routes=distinct(routes, "key", 0),
)


def _marked(component: ComponentSpec, some: bool) -> ComponentSpec:
    names = [entry.partition("=")[0] for entry in component.env]
    secret = tuple(name for name in names if names.count(name) == 1) if some else ()
    return component.model_copy(update={"secret_env": secret})


components = st.builds(_marked, components, st.booleans())
services = st.builds(
    ServiceSpec,
    name=names,
    node=st.none() | names,
    active=st.booleans(),
    version=st.none() | versions,
    path=st.none() | texts,
    tier=st.none() | st.sampled_from(Tier),
    depends_on=lists(st.sampled_from(["no-such-1", "no-such-2"])),
    build=st.none() | st.builds(BuildSpec, images=st.dictionaries(image_names, texts, max_size=3)),
    snapshot=st.none() | st.builds(SnapshotSpec, method=st.none() | texts, exclude=lists(texts)),
    components=distinct(components, "name", 1),
)


def full() -> ServiceSpec:
    """Every field of every model is set, and to something else than its default."""
    return ServiceSpec(
        name="full",
        node="rift",
        active=False,
        version="v1.0.0",
        path="src/full",
        tier=Tier.CORE,
        depends_on=("mcias",),
        build=BuildSpec(images={"full": "Dockerfile"}),
        snapshot=SnapshotSpec(method="cp", exclude=("cache",)),
        components=(
            ComponentSpec(
                name="web",
                active=False,
                image="reg:5000/full:v1.0.0",
                version="v1.0.1",
                network="mcpnet",
                user="0:0",
                restart=RestartPolicy.ON_FAILURE,
                ports=("127.0.0.1:18443:8443",),
                volumes=("/srv/full:/srv/full",),
                cmd=("server",),
                env=("KEY=value",),
                secret_env=("KEY",),
                pull=PullPolicy.NEWER,
                depends_on=("db",),
                entrypoint=("/bin/web",),
                working_dir="/srv",
                secrets=("key:/etc/key",),
                labels={"team": "infra"},
                extra_hosts=("db.example:10.0.0.5",),
                memory="512M",
                cpus=0.5,
                pids=100,
                read_only=True,
                tmpfs=("/tmp:size=64M",),
                cap_drop=("ALL",),
                cap_add=("NET_BIND_SERVICE",),
                privileged=True,
                host_namespaces=(HostNamespace.PID,),
                stop_signal="SIGINT",
                stop_timeout="30s",
                health=HealthSpec(
                    http="/healthz",
                    status=204,
                    tls=True,
                    route="rest",
                    interval="5s",
                    timeout="1s",
                    retries=5,
                    start_period="1m",
                    liveness=False,
                ),
                update=UpdateSpec(strategy=Strategy.BLUE_GREEN, deadline="90s", drain="2m"),
                routes=(RouteSpec(name="rest", port=8443, mode=RouteMode.L7, hostname="full.example", public=True),),
            ),
            ComponentSpec(name="db", image="db:1", ports=("5432",), health=HealthSpec(tcp=True, port=5432)),
            ComponentSpec(name="task", image="task:1", health=HealthSpec(exec=("true",))),
        ),
    )
