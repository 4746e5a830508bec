"""States to render, store and change."""

from pathlib import Path

from mcproxy.model import (
    Bundle,
    Entry,
    FirewallRule,
    FirewallRuleType,
    L7Policy,
    Mode,
    PolicyType,
    Route,
    State,
    Upstream,
)
from mcproxy.render import Listener

RUNTIME = Path("/run/mcproxy")
MAIN, PROXIED = ":443", ":8443"
LISTENERS = (
    Listener(MAIN, ("0.0.0.0", "::")),
    Listener(PROXIED, ("192.0.2.1",), proxy_protocol=True, max_connections=100),
)


def l4(hostname: str = "raw.test", backend: str = "127.0.0.1:9000", **fields: object) -> Entry:
    """An l4 entry."""
    route = Route.model_validate({"hostname": hostname, "backend": backend, **fields})
    return Entry(route, None, Upstream(backend.rpartition(":")[0].strip("[]")))


def l7(hostname: str = "web.test", *, h2c: bool = False, digest: str = "d" * 64, **fields: object) -> Entry:
    """An l7 entry to 127.0.0.1:9001."""
    given = {"hostname": hostname, "backend": "127.0.0.1:9001", "mode": Mode.L7, "tls_cert": "/c", "tls_key": "/k"}
    return Entry(Route.model_validate({**given, **fields}), Bundle(digest, b"PEM"), Upstream("127.0.0.1", h2c))


def everything() -> State:
    """A state with each thing that can be said in it."""
    policies = (
        L7Policy(type=PolicyType.BLOCK_USER_AGENT, value="it's a 'Bot' \\ \"#\""),
        L7Policy(type=PolicyType.REQUIRE_HEADER, value="X-Token"),
    )
    state = State(
        firewall=(
            FirewallRule(type=FirewallRuleType.IP, value="203.0.113.7"),
            FirewallRule(type=FirewallRuleType.CIDR, value="2001:db8::/32"),
        ),
        limits={MAIN: 50},
    )
    for entry in (
        l4(),
        l4("six.test", "[::1]:9000", send_proxy_protocol=True),
        l7(),
        l7("grpc.test", h2c=True, send_proxy_protocol=True, digest="e" * 64),
        l7("tls.test", backend_tls=True),
        l7("guarded.test", l7_policies=policies),
        Entry(l7("lost.test").route, None, Upstream("127.0.0.1")),
        Entry(l7("unresolved.test", backend="nowhere.test:80").route, l7().bundle, Upstream(None)),
    ):
        state = state.with_entry(MAIN, entry)
    return state.with_entry(PROXIED, l4("web.test"))
