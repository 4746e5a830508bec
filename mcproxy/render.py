"""State in, HAProxy's configuration out: pure text.

Everything but the configuration itself goes into files named by their content, which are never written twice. So the
rename of one file switches a whole configuration, and whatever was running can always be read again.

One TCP frontend a listener peeks the SNI and looks up its backend in a map: connections for l4 backends go there as
they are, those for l7 backends to an inner frontend on a Unix socket, which terminates TLS and looks into the same map.

HAProxy 2.6 cannot make a backend while it runs. So there are spare ones without an address, some for each way to speak
to a backend, which spares.py puts into use.

A request that meets the restart of a backend on this host is held, not failed: HAProxy tries again to connect until it
succeeds or the patience ends. That replays nothing: what is tried again is the connection, not a request once sent.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
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
  # As a plain reverse proxy does: an absent backend elsewhere is told at once, the client decides to retry.
  retries 0
  timeout connect 5s
  # A client that gave up while it was held may have sent its request once more by then.
  option abortonclose
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
  use_backend tls{addr} if {{ req_ssl_sni,lower,map_str({names}) -m beg l7: }}
  use_backend %[req_ssl_sni,lower,map_str({names},refuse)]
  default_backend refuse

backend tls{addr}
  mode tcp
  retries 3
  server inner unix@{runtime}/tls{port}.sock send-proxy-v2

frontend tls{addr}
  mode http
  bind unix@{runtime}/tls{port}.sock mode 600 accept-proxy ssl crt-list {certificates} \
alpn h2,http/1.1 ssl-min-ver TLSv1.3 strict-sni
  option http-no-delay
  # After a reload: closing an idle connection at once would race with its next request, which is answered instead.
  option idle-close-on-response
  # Idle connections to backends belong to the backend's pool, never to a client: drain.py can empty only the pool.
  max-session-srv-conns 0
  # A client that ignores GOAWAY must not keep an old worker.
  timeout client-fin 30s
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Real-IP %[src]
  use_backend %[ssl_fc_sni,lower,map_str({names})]
"""


SPARES = 16
"""So many routes of a kind can be added to a listener without a reload."""

SERVER = "backend"
"""The name of the one server in each route's backend."""

# On this host a connection is made within microseconds or not at all. Each try looks at the server's address anew.
_PATIENT = "\n  retries 60\n  timeout connect 50ms\n  option redispatch 1"
# TLS with the backend is part of the time to connect.
_PATIENT_OVER_TLS = "\n  retries 6\n  timeout connect 500ms\n  option redispatch 1"

# A WebSocket's upgrade belongs to HTTP/1.1, whatever else is spoken; few backends know RFC 8441.
# Idle connections are soon given up: drain.py does so sooner, but cannot where a worker only finishes its connections.
_SPOKEN = {"l4": "", "h1": " ws h1 pool-purge-delay 500ms", "h2c": " ws h1 proto h2 pool-purge-delay 500ms"}


@dataclass(frozen=True)
class Listener:
    """A public port as HAProxy binds it: `hosts` are literal addresses, `max_connections` 0 is unlimited."""

    addr: str
    hosts: tuple[str, ...]
    proxy_protocol: bool = False
    max_connections: int = 0


@dataclass(frozen=True)
class Lookup:
    """The paths of one listener's map from names to backends, of its list of certificates, and of `elsewhere`.

    That is a map from names to ADDRESS@PORT, empty at first, for the backends that elsewhere_name gives.
    """

    names: str
    certificates: str
    elsewhere: str


@dataclass(frozen=True)
class Rendered:
    """HAProxy's configuration, the files it refers to by name in the runtime folder, and each listener's lookup."""

    config: str
    files: Mapping[str, bytes]
    lookups: Mapping[str, Lookup]


class Kind(StrEnum):
    """The ways to speak to a backend that spare ones are there for."""

    L4 = "l4"
    H1 = "h1"
    H2C = "h2c"


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


def spare_name(addr: str, kind: Kind, number: int) -> str:
    """The name of a spare backend; no route's hostname begins with a dot."""
    return f"{Mode.L4 if kind is Kind.L4 else Mode.L7}{addr}:.{kind}.{number}"


def elsewhere_name(addr: str, kind: Kind) -> str:
    """The name of the backend that looks up its address for each request."""
    return f"{Mode.L7}{addr}:.{kind}.elsewhere"


def route_key(backend: str) -> RouteKey | None:
    """The route that a backend's name belongs to; None for the backends that are no route's."""
    mode, *key = backend.split(":", 2)
    return RouteKey(f":{key[0]}", key[1]) if mode in tuple(Mode) and len(key) == 2 else None


def render(state: State, listeners: Sequence[Listener], runtime: Path, generation: int) -> Rendered:
    """The configuration for this state; `generation` tells its worker from those of other reloads."""
    files: dict[str, bytes] = {}
    lookups: dict[str, Lookup] = {}

    def put(kind: str, content: bytes, digest: str | None = None) -> str:
        name = file_name(digest or hashlib.sha256(content).hexdigest(), kind)
        files[name] = content
        return f"{runtime}/{name}"

    parts = [_GLOBAL.format(runtime=runtime, control=control_socket(generation))]
    denied = put("firewall", "".join(f"{rule.value}\n" for rule in state.firewall).encode()) if state.firewall else None
    for listener in listeners:
        addr = listener.addr
        entries = {key: state.entries[key] for key in sorted(state.entries) if _served(state, key, listener)}
        names = "".join(f"{key.hostname} {backend_name(key, entry.route.mode)}\n" for key, entry in entries.items())
        bundles = [(key.hostname, entry.bundle) for key, entry in entries.items() if entry.bundle is not None]
        shown = "".join(f"{put('pem', bundle.pem, bundle.digest)} {hostname}\n" for hostname, bundle in bundles)
        # A lookup may be added to while HAProxy runs, so that each listener needs its own, be its content the same.
        mark = f"# {addr}\n"
        lookups[addr] = Lookup(
            put("map", (mark + names).encode()),
            put("certificates", (mark + shown).encode()),
            put("map", f"# {addr} elsewhere\n".encode()),
        )
        limit = state.limits.get(addr, listener.max_connections)
        parts.append(
            _LISTENER.format(
                addr=addr,
                port=addr.replace(":", "-"),
                runtime=runtime,
                binds=_binds(listener),
                guards=_guards(denied, limit, proxied=listener.proxy_protocol),
                names=lookups[addr].names,
                certificates=lookups[addr].certificates,
            )
        )
        parts.extend(_backend(key, entry) for key, entry in entries.items())
        parts.extend(_spare(addr, kind, number) for kind in Kind for number in range(SPARES))
        parts.extend(_elsewhere(addr, kind, lookups[addr].elsewhere) for kind in (Kind.H1, Kind.H2C))
    return Rendered("".join(parts), files, lookups)


def server_kind(entry: Entry) -> Kind | None:
    """How the entry's backend is spoken to, None when that takes more than a spare backend can do."""
    route = entry.route
    if route.l7_policies or route.send_proxy_protocol or not entry.served or not _is_local(entry.upstream.address):
        return None
    if route.mode is Mode.L4:
        return Kind.L4
    if route.backend_tls:
        return None
    return Kind.H2C if entry.upstream.h2c else Kind.H1


def _served(state: State, key: RouteKey, listener: Listener) -> bool:
    return key.listener == listener.addr and state.entries[key].served


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
    patient = _PATIENT_OVER_TLS if route.backend_tls else _PATIENT
    patience = patient if _is_local(entry.upstream.address) else ""
    lines = [_backend_head(backend_name(key, route.mode), route.mode, patience)]
    lines.extend(_denials(route.l7_policies))
    lines.append(f"  server {SERVER} {_server(entry)}")
    return "\n".join(lines) + "\n"


def _spare(addr: str, kind: Kind, number: int) -> str:
    head = _backend_head(spare_name(addr, kind, number), Mode.L4 if kind is Kind.L4 else Mode.L7, _PATIENT)
    return f"{head}\n  server {SERVER} 127.0.0.1:1 disabled{_SPOKEN[kind]}\n"


def _elsewhere(addr: str, kind: Kind, addresses: str) -> str:
    looked_up = f"ssl_fc_sni,lower,map_str({addresses})"
    return (
        f"{_backend_head(elsewhere_name(addr, kind), Mode.L7, _PATIENT)}\n"
        f"  http-request set-dst {looked_up},field(1,@)\n"
        f"  http-request set-dst-port {looked_up},field(2,@)\n"
        f"  server {SERVER} 0.0.0.0:0{_SPOKEN[kind]}\n"
    )


def _backend_head(name: str, mode: Mode, patience: str) -> str:
    spoken = "  mode tcp" if mode is Mode.L4 else "  mode http\n  option http-no-delay"
    return f"\nbackend {name}\n{spoken}{patience}"


def _is_local(address: str | None) -> bool:
    return address is not None and ipaddress.ip_address(address).is_loopback


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
    words = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    if upstream.address is None:
        words += " disabled"
    if route.send_proxy_protocol:
        words += " send-proxy-v2"
    if route.mode is Mode.L4:
        return words + _SPOKEN[Kind.L4]
    if route.backend_tls:
        return f"{words}{_SPOKEN[Kind.H1]} ssl verify none sni str({route.hostname}) alpn h2,http/1.1"
    return words + _SPOKEN[Kind.H2C if upstream.h2c else Kind.H1]


def _quoted(text: str) -> str:
    """One word of HAProxy's configuration language, whatever is in it (HAProxy configuration manual, 2.2)."""
    return "'" + text.replace("'", "'\\''") + "'"
