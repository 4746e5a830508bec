"""Definitions for tests: any at all, and one in which every field is set."""

from typing import Any

from hypothesis import strategies as st

from api.spec import BuildSpec, ComponentSpec, RestartPolicy, RouteMode, RouteSpec, ServiceSpec, SnapshotSpec, Tier

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


routes = st.builds(
    RouteSpec,
    name=st.none() | names,
    port=st.integers(1, 65535),
    mode=st.sampled_from(RouteMode),
    hostname=st.none() | st.sampled_from(["a.example", "x.y.z"]),
    public=st.booleans(),
)
components = st.builds(
    ComponentSpec,
    name=names,
    image=st.none() | images,
    version=st.none() | versions,
    network=st.none() | texts,
    user=st.none() | texts,
    restart=st.none() | st.sampled_from(RestartPolicy),
    ports=lists(ports),
    volumes=st.none() | lists(volumes),
    cmd=lists(texts),
    env=lists(entries),
    routes=distinct(routes, "key", 0),
)
services = st.builds(
    ServiceSpec,
    name=names,
    node=st.none() | names,
    active=st.booleans(),
    version=st.none() | versions,
    path=st.none() | texts,
    tier=st.none() | st.sampled_from(Tier),
    build=st.none() | st.builds(BuildSpec, images=st.dictionaries(texts, texts, max_size=3)),
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
        build=BuildSpec(images={"full": "Dockerfile"}),
        snapshot=SnapshotSpec(method="cp", exclude=("cache",)),
        components=(
            ComponentSpec(
                name="web",
                image="reg:5000/full:v1.0.0",
                version="v1.0.1",
                network="mcpnet",
                user="0:0",
                restart=RestartPolicy.ON_FAILURE,
                ports=("127.0.0.1:18443:8443",),
                volumes=("/srv/full:/srv/full",),
                cmd=("server",),
                env=("KEY=value",),
                routes=(RouteSpec(name="rest", port=8443, mode=RouteMode.L7, hostname="full.example", public=True),),
            ),
        ),
    )
