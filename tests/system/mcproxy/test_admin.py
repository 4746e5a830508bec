"""The admin API: what it stores, and what it refuses with which code."""

import asyncio
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from api.gen.mc_proxy.v1 import admin_pb2 as pb
from tests.system.mcproxy.authority import Authority, Files
from tests.system.mcproxy.backends import http1, tls_echo
from tests.system.mcproxy.clients import Connection, connect, get
from tests.system.mcproxy.daemon import Daemon, mode, until


class refused:  # noqa: N801 - reads as pytest.raises does
    """Expects this code, and words that the message must have."""

    def __init__(self, code: grpc.StatusCode, *words: str) -> None:
        self._code = code
        self._words = words
        self._raises = pytest.raises(grpc.aio.AioRpcError)

    def __enter__(self) -> None:
        self._caught = self._raises.__enter__()

    def __exit__(self, *error: object) -> bool:
        swallowed = self._raises.__exit__(*error)  # type: ignore[arg-type]  # passed on as they come
        failure = self._caught.value
        assert failure.code() is self._code, failure
        details = failure.details() or ""
        assert all(word in details for word in self._words), details
        assert "Traceback" not in details
        return swallowed


INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def test_routes_are_listed_as_they_were_given(daemon: Daemon, authority: Authority) -> None:
    files = authority.issue("b.test")
    policies = [{"type": "require_header", "value": "X-Token"}]
    await daemon.l7("b.test", "127.0.0.1:9", files, backend_tls=True, send_proxy_protocol=True, l7_policies=policies)
    await daemon.l4("a.test", "[::1]:9", mode="")
    assert await daemon.routes() == [
        pb.Route(hostname="a.test", backend="[::1]:9", mode="l4"),
        pb.Route(
            hostname="b.test",
            backend="127.0.0.1:9",
            mode="l7",
            tls_cert=str(files.cert),
            tls_key=str(files.key),
            backend_tls=True,
            send_proxy_protocol=True,
            l7_policies=[pb.L7Policy(type="require_header", value="X-Token")],
        ),
    ]
    assert await daemon.routes(listener=1) == []


async def test_adding_again_replaces_and_removing_again_is_not_found(daemon: Daemon) -> None:
    await daemon.l4("a.test", 1)
    await daemon.l4("A.test", 2)
    assert [route.backend for route in await daemon.routes()] == ["127.0.0.1:2"]
    await daemon.remove("A.TEST")
    assert await daemon.routes() == []
    with refused(NOT_FOUND, "a.test"):
        await daemon.remove("a.test")


async def test_an_unknown_listener_is_not_found(daemon: Daemon) -> None:
    """By every method that names one."""
    admin, addr = daemon.admin, ":1"
    calls = [
        admin.ListRoutes(pb.ListRoutesRequest(listener_addr=addr)),
        admin.AddRoute(pb.AddRouteRequest(listener_addr=addr, route=pb.Route(hostname="a.test", backend="a:1"))),
        admin.RemoveRoute(pb.RemoveRouteRequest(listener_addr=addr, hostname="a.test")),
        admin.SetListenerMaxConnections(pb.SetListenerMaxConnectionsRequest(listener_addr=addr, max_connections=1)),
        admin.ListL7Policies(pb.ListL7PoliciesRequest(listener_addr=addr, hostname="a.test")),
        admin.AddL7Policy(pb.AddL7PolicyRequest(listener_addr=addr, hostname="a.test")),
        admin.RemoveL7Policy(pb.RemoveL7PolicyRequest(listener_addr=addr, hostname="a.test")),
    ]
    for call in calls:
        with refused(NOT_FOUND, "':1'", daemon.addr):
            await call


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"hostname": ""}, "hostname"),
        ({"hostname": "a b"}, "hostname"),
        ({"hostname": "*.a.test"}, "hostname"),
        ({"hostname": "-a.test"}, "hostname"),
        ({"hostname": "a..test"}, "hostname"),
        ({"hostname": "10.0.0.1"}, "address"),
        ({"hostname": "x" * 64 + ".test"}, "hostname"),
        ({"hostname": "a.test\n  bind :1"}, "hostname"),
        ({"backend": ""}, "backend"),
        ({"backend": "127.0.0.1"}, "backend"),
        ({"backend": "127.0.0.1:0"}, "backend"),
        ({"backend": "127.0.0.1:65536"}, "backend"),
        ({"backend": "::1:80"}, "backend"),
        ({"backend": ":80"}, "backend"),
        ({"backend": "1.1.1.1 disabled:80"}, "backend"),
        ({"mode": "l5"}, "mode"),
        ({"mode": "l7"}, "tls_cert"),
        ({"mode": "l7", "tls_cert": "/x"}, "tls_key"),
        ({"l7_policies": [{"type": "require_header", "value": "x"}]}, "l4"),
    ],
)
async def test_bad_routes_are_invalid(daemon: Daemon, fields: dict[str, object], word: str) -> None:
    good: dict[str, object] = {"hostname": "a.test", "backend": "127.0.0.1:9", "mode": "l4"}
    route = pb.Route(**{**good, **fields})  # type: ignore[arg-type]  # by field name
    with refused(INVALID, word):
        await daemon.admin.AddRoute(pb.AddRouteRequest(listener_addr=daemon.addr, route=route))
    assert await daemon.routes() == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("block_country", "x"),
        ("", "x"),
        ("require_header", ""),
        ("require_header", "X Token"),
        ("require_header", "x) -m found } #"),
        ("block_user_agent", ""),
        ("block_user_agent", "two\nlines"),
        ("block_user_agent", "x" * 513),
    ],
)
async def test_bad_policies_are_invalid(daemon: Daemon, authority: Authority, kind: str, value: str) -> None:
    await daemon.l7("a.test", 9, authority.issue("a.test"))
    policy = pb.L7Policy(type=kind, value=value)
    with refused(INVALID):
        await daemon.admin.AddL7Policy(
            pb.AddL7PolicyRequest(listener_addr=daemon.addr, hostname="a.test", policy=policy)
        )


async def test_a_certificate_that_cannot_be_used_is_invalid(daemon: Daemon, authority: Authority) -> None:
    """The message names the path and the reason; nothing is kept."""
    good, other = authority.issue("a.test"), authority.issue("b.test")
    absent, junk = good.cert.with_name("absent"), good.cert.with_name("junk")
    junk.write_text("junk")
    for files, words in [
        (Files(absent, good.key), ("tls_cert", str(absent), "No such file")),
        (Files(good.cert, absent), ("tls_key", str(absent), "No such file")),
        (Files(junk, good.key), ("tls_cert", str(junk), "PEM")),
        (Files(good.cert, junk), ("tls_key", str(junk), "PEM")),
        (Files(good.cert, other.key), ("tls_key", str(other.key), str(good.cert))),
        (Files(good.cert.parent, good.key), ("tls_cert", "directory")),
    ]:
        with refused(INVALID, *words):
            await daemon.l7("a.test", 9, files)
    assert await daemon.routes() == []


async def test_firewall_rules_refuse_connections(daemon: Daemon, authority: Authority) -> None:
    """By address and by network, at once, and no longer when they are gone."""

    async def reaches() -> bool:
        try:
            (await connect(daemon.port, "raw.test", authority.client())).close()
        except ConnectionError:
            return False
        return True

    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
        for kind, value in ((pb.FIREWALL_RULE_TYPE_IP, "127.0.0.1"), (pb.FIREWALL_RULE_TYPE_CIDR, "127.0.0.0/8")):
            rule = pb.FirewallRule(type=kind, value=value)
            assert await reaches()
            for _ in range(2):
                await daemon.admin.AddFirewallRule(pb.AddFirewallRuleRequest(rule=rule))
            answer = await daemon.admin.GetFirewallRules(pb.GetFirewallRulesRequest())
            assert list(answer.rules) == [rule]
            assert not await reaches()
            await daemon.admin.RemoveFirewallRule(pb.RemoveFirewallRuleRequest(rule=rule))
            assert await reaches()
            with refused(NOT_FOUND, value):
                await daemon.admin.RemoveFirewallRule(pb.RemoveFirewallRuleRequest(rule=rule))
        elsewhere = pb.FirewallRule(type=pb.FIREWALL_RULE_TYPE_CIDR, value="2001:db8::/32")
        await daemon.admin.AddFirewallRule(pb.AddFirewallRuleRequest(rule=elsewhere))
        assert await reaches()


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        (pb.FIREWALL_RULE_TYPE_IP, "127.0.0.0/8", INVALID),
        (pb.FIREWALL_RULE_TYPE_IP, "", INVALID),
        (pb.FIREWALL_RULE_TYPE_CIDR, "127.0.0.1/8", INVALID),
        (pb.FIREWALL_RULE_TYPE_CIDR, "everyone", INVALID),
        (pb.FIREWALL_RULE_TYPE_UNSPECIFIED, "127.0.0.1", INVALID),
        (pb.FIREWALL_RULE_TYPE_COUNTRY, "NZ", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_bad_firewall_rules(
    daemon: Daemon, kind: pb.FirewallRuleType.ValueType, value: str, code: grpc.StatusCode
) -> None:
    with refused(code):
        rule = pb.FirewallRule(type=kind, value=value)
        await daemon.admin.AddFirewallRule(pb.AddFirewallRuleRequest(rule=rule))


async def test_policies_are_added_and_removed_one_by_one(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        where = {"listener_addr": daemon.addr, "hostname": "WEB.test"}
        policy = pb.L7Policy(type="require_header", value="X-Token")

        async def status() -> int:
            return (await get(daemon.port, "web.test", authority.client())).status

        for _ in range(2):
            await daemon.admin.AddL7Policy(pb.AddL7PolicyRequest(**where, policy=policy))
        assert list((await daemon.admin.ListL7Policies(pb.ListL7PoliciesRequest(**where))).policies) == [policy]
        assert list((await daemon.routes())[0].l7_policies) == [policy]
        assert await status() == 403
        await daemon.admin.RemoveL7Policy(pb.RemoveL7PolicyRequest(**where, policy=policy))
        assert await status() == 200
        with refused(NOT_FOUND, "X-Token"):
            await daemon.admin.RemoveL7Policy(pb.RemoveL7PolicyRequest(**where, policy=policy))


async def test_policies_need_an_l7_route(daemon: Daemon) -> None:
    await daemon.l4("raw.test", 9)
    policy = pb.L7Policy(type="require_header", value="X-Token")
    for hostname, code in (("raw.test", grpc.StatusCode.FAILED_PRECONDITION), ("none.test", NOT_FOUND)):
        with refused(code, hostname):
            await daemon.admin.AddL7Policy(
                pb.AddL7PolicyRequest(listener_addr=daemon.addr, hostname=hostname, policy=policy)
            )


async def test_the_limit_of_connections_changes_live(daemon: Daemon, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)

        async def limit(connections: int) -> None:
            request = pb.SetListenerMaxConnectionsRequest(listener_addr=daemon.addr, max_connections=connections)
            await daemon.admin.SetListenerMaxConnections(request)

        async def admitted() -> Connection:
            async with asyncio.timeout(10):
                while True:
                    with suppress(ConnectionError):  # one that has just been closed may still be counted
                        return await connect(daemon.port, "raw.test", authority.client())

        await limit(2)
        kept = [await admitted() for _ in range(2)]
        with pytest.raises(ConnectionError):
            await connect(daemon.port, "raw.test", authority.client())
        await limit(0)
        kept += [await connect(daemon.port, "raw.test", authority.client()) for _ in range(3)]
        for connection in kept:
            assert await connection.line() == {"backend": "raw"}
            connection.close()
        for wrong in (-1, 1 << 40):
            with refused(INVALID, "max_connections"):
                await limit(wrong)


async def test_status_counts_what_is_open(daemon: Daemon, authority: Authority) -> None:
    """Also what a worker of before a change still serves."""
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
        await daemon.l4("raw.test", port, listener=1)
        first = await connect(daemon.ports[0], "raw.test", authority.client())
        await daemon.l4("other.test", port)
        await daemon.change()
        second = await connect(daemon.ports[0], "raw.test", authority.client())
        third = await connect(daemon.ports[1], "raw.test", authority.client())
        request = pb.SetListenerMaxConnectionsRequest(listener_addr=daemon.addr, max_connections=7)
        await daemon.admin.SetListenerMaxConnections(request)

        answer = await daemon.admin.GetStatus(pb.GetStatusRequest())
        assert answer.version
        assert answer.started_at.seconds > 0
        assert answer.total_connections == 3
        shown = [
            (each.addr, each.route_count, each.active_connections, each.max_connections) for each in answer.listeners
        ]
        assert shown == [(daemon.addr, 2, 2, 7), (f":{daemon.ports[1]}", 1, 1, 0)]
        for connection in (first, second, third):
            connection.close()

        async def all_gone() -> bool:
            return (await daemon.admin.GetStatus(pb.GetStatusRequest())).total_connections == 0

        await until(all_gone)


async def test_health_and_reflection_are_served(daemon: Daemon) -> None:
    service = "mc_proxy.v1.ProxyAdminService"
    async with grpc.aio.insecure_channel(f"unix:{daemon.admin_socket}") as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await call.read()
        assert service in [each.name for each in answer.list_services_response.service]


async def test_sockets_and_keys_are_their_owners_alone(daemon: Daemon, authority: Authority) -> None:
    await daemon.l7("web.test", 9, authority.issue("web.test"))

    folders = [daemon.admin_socket.parent, daemon.runtime, daemon.database.parent]
    files = [daemon.admin_socket, daemon.database, *daemon.runtime.glob("*.pem")]
    assert {mode(path) for path in folders} == {0o700}
    assert {mode(path) for path in files} == {0o600}
    assert not any(mode(path) & 0o077 for path in daemon.runtime.iterdir())


async def test_a_caller_that_goes_away_leaves_the_table_sound(daemon: Daemon) -> None:
    request = pb.AddRouteRequest(listener_addr=daemon.addr, route=pb.Route(hostname="a.test", backend="127.0.0.1:9"))
    calls = [daemon.admin.AddRoute(request) for _ in range(5)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await daemon.l4("b.test", 9)
    assert "b.test" in [route.hostname for route in await daemon.routes()]
