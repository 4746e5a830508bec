"""State in, HAProxy's configuration out: pure text.

Everything but the configuration itself goes into files named by their content, which are never written twice. So the
rename of one file switches a whole configuration, and whatever was running can always be read again.

One TCP frontend a listener peeks the SNI and looks it up in a map: l4 names go to their backend as they are, l7 names
to an inner frontend on a Unix socket, which terminates TLS and picks the backend by the same name.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcproxy.model import Entry, L7Policy, Mode, PolicyType, RouteKey, State, split_backend

_GLOBAL = """\
global
  stats socket {runtime}/{control} mode 600 level admin
  log {runtime}/log.sock format raw local0
  fd-hard-limit 65536
  # Two proxies on one port would each get a share of its connections: refuse to start instead.
  noreuseport
  # The built-in HTTP client, unused here, would otherwise read the system's CA files on every reload.
  httpclient.ssl.verify none
  # TLS 1.3 resumes by tickets; the shared cache would be for nothing.
  tune.ssl.cachesize 0

defaults
  log global
  log-format "%b %ts"
  option dontlog-normal
  # Silence is no fault on a relay: dead peers are found by keep-alive probes, not by an idle limit.
  option clitcpka
  option srvtcpka
  # As a plain reverse proxy does: an absent backend is told at once, the client decides to retry.
  retries 0
  timeout connect 5s
  timeout client 24h
  timeout server 24h
  timeout tunnel 24h
  timeout http-request 30s
  timeout http-keep-alive 5m

backend refuse
  mode tcp
  tcp-request content reject
"""

_LISTENER = """\

frontend listener{addr}
  mode tcp
{binds}
{guards}  tcp-request inspect-delay 10s
  tcp-request content reject unless {{ req_ssl_hello_type 1 }}
  use_backend %[req_ssl_sni,lower,map_str({names},refuse)]
  default_backend refuse
"""

_TERMINATION = """\

backend tls{addr}
  mode tcp
  server inner unix@{runtime}/tls-{port}.sock send-proxy-v2

frontend tls{addr}
  mode http
  bind unix@{runtime}/tls-{port}.sock mode 600 accept-proxy ssl crt-list {certificates} \
alpn h2,http/1.1 ssl-min-ver TLSv1.3 strict-sni
  option http-no-delay
  # A client that ignores GOAWAY must not keep an old worker.
  timeout client-fin 30s
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Real-IP %[src]
  use_backend l7{addr}:%[ssl_fc_sni,lower]
"""


@dataclass(frozen=True)
class Listener:
    """A public port as HAProxy binds it: `hosts` are literal addresses, `max_connections` 0 is unlimited."""

    addr: str
    hosts: tuple[str, ...]
    proxy_protocol: bool = False
    max_connections: int = 0


@dataclass(frozen=True)
class Rendered:
    """HAProxy's configuration and the files it refers to, by name in the runtime folder."""

    config: str
    files: Mapping[str, bytes]


def control_socket(generation: int) -> str:
    """The name of the socket that only the worker of this generation answers on."""
    return f"worker-{generation}.sock"


def file_name(digest: str, kind: str) -> str:
    """The name, by content, of a file in the runtime folder."""
    return f"{digest[:32]}.{kind}"


def frontend_name(addr: str) -> str:
    """The name of a listener's frontend in HAProxy's statistics."""
    return f"listener{addr}"


def backend_name(key: RouteKey, mode: Mode) -> str:
    """The name of a route's backend, which error logs give back."""
    return f"{mode}{key.listener}:{key.hostname}"


def route_key(backend: str) -> RouteKey | None:
    """The route that a backend's name belongs to; None for the backends that are no route's."""
    mode, *key = backend.split(":", 2)
    return RouteKey(f":{key[0]}", key[1]) if mode in tuple(Mode) and len(key) == 2 else None


def render(state: State, listeners: Sequence[Listener], runtime: Path, generation: int) -> Rendered:
    """The configuration for this state; `generation` tells its worker from those of other reloads."""
    files: dict[str, bytes] = {}

    def put(kind: str, content: bytes, digest: str | None = None) -> str:
        name = file_name(digest or hashlib.sha256(content).hexdigest(), kind)
        files[name] = content
        return f"{runtime}/{name}"

    parts = [_GLOBAL.format(runtime=runtime, control=control_socket(generation))]
    denied = put("firewall", "".join(f"{rule.value}\n" for rule in state.firewall).encode()) if state.firewall else None
    for listener in listeners:
        entries = {key: state.entries[key] for key in sorted(state.entries) if _served(state, key, listener)}
        names = put(
            "map", "".join(f"{key.hostname} {_target(key, entry)}\n" for key, entry in entries.items()).encode()
        )
        limit = state.limits.get(listener.addr, listener.max_connections)
        guards = _guards(denied, limit, proxied=listener.proxy_protocol)
        parts.append(_LISTENER.format(addr=listener.addr, binds=_binds(listener), guards=guards, names=names))
        bundles = [(key.hostname, entry.bundle) for key, entry in entries.items() if entry.bundle is not None]
        if bundles:
            lines = (f"{put('pem', bundle.pem, bundle.digest)} {hostname}\n" for hostname, bundle in bundles)
            certificates = put("certificates", "".join(lines).encode())
            port = listener.addr.removeprefix(":")
            parts.append(_TERMINATION.format(addr=listener.addr, port=port, runtime=runtime, certificates=certificates))
        parts.extend(_backend(key, entry) for key, entry in entries.items())
    return Rendered("".join(parts), files)


def _served(state: State, key: RouteKey, listener: Listener) -> bool:
    return key.listener == listener.addr and state.entries[key].served


def _target(key: RouteKey, entry: Entry) -> str:
    """Where the outer frontend sends a name."""
    return backend_name(key, Mode.L4) if entry.route.mode is Mode.L4 else f"tls{key.listener}"


def _binds(listener: Listener) -> str:
    port = listener.addr.removeprefix(":")
    proxied = " accept-proxy" if listener.proxy_protocol else ""
    return "\n".join(
        f"  bind [{host}]:{port} v6only{proxied}" if ":" in host else f"  bind {host}:{port}{proxied}"
        for host in listener.hosts
    )


def _guards(denied: str | None, limit: int, *, proxied: bool) -> str:
    # With PROXY protocol the client's own address is known only after the header, when the session begins.
    stage = "session" if proxied else "connection"
    firewall = f"  tcp-request {stage} reject if {{ src -f {denied} }}\n" if denied else ""
    return firewall + (f"  tcp-request connection reject if {{ fe_conn gt {limit} }}\n" if limit else "")


def _backend(key: RouteKey, entry: Entry) -> str:
    route = entry.route
    lines = [f"\nbackend {backend_name(key, route.mode)}"]
    lines += ["  mode tcp"] if route.mode is Mode.L4 else ["  mode http", "  option http-no-delay"]
    lines.extend(_denials(route.l7_policies))
    lines.append(f"  server backend {_server(entry)}")
    return "\n".join(lines) + "\n"


def _denials(policies: Iterable[L7Policy]) -> Iterable[str]:
    for policy in policies:
        if policy.type is PolicyType.BLOCK_USER_AGENT:
            condition = f"if {{ req.fhdr(user-agent) -m sub -- {_quoted(policy.value)} }}"
        else:
            condition = f"unless {{ req.fhdr({policy.value}) -m len gt 0 }}"
        yield f"  http-request deny deny_status 403 {condition}"


def _server(entry: Entry) -> str:
    route, upstream = entry.route, entry.upstream
    _, port = split_backend(route.backend)
    address = upstream.address or "127.0.0.1"
    words = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"]
    if upstream.address is None:
        words.append("disabled")
    if route.send_proxy_protocol:
        words.append("send-proxy-v2")
    if route.mode is Mode.L7:
        # A WebSocket's upgrade belongs to HTTP/1.1; few backends know RFC 8441.
        words.append("ws h1")
        if route.backend_tls:
            words.append(f"ssl verify none sni str({route.hostname}) alpn h2,http/1.1")
        elif upstream.h2c:
            words.append("proto h2")
    return " ".join(words)


def _quoted(text: str) -> str:
    """One word of HAProxy's configuration language, whatever is in it (HAProxy configuration manual, 2.2)."""
    return "'" + text.replace("'", "'\\''") + "'"
