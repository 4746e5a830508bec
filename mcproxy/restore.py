"""What mcproxyd begins with: the database's routes, seen again with the certificates and backends of today.

One route's trouble never keeps the others from being served.
"""

import asyncio
from dataclasses import replace

import structlog

from mcproxy.certificate import load_bundle
from mcproxy.errors import Refused
from mcproxy.haproxy import HAProxy
from mcproxy.model import Bundle, Entry, Mode, RouteKey, State
from mcproxy.runtime import RuntimeDir
from mcproxy.settings import Settings
from mcproxy.store import Store, StoredRoute
from mcproxy.upstream import assumed, find_out

log = structlog.get_logger()


def seed(settings: Settings) -> State:
    """What a new database begins with. Raises Refused for a route whose certificate cannot be used."""
    state = State(firewall=tuple(dict.fromkeys(settings.firewall)))
    for wanted in settings.routes:
        route = wanted.route()
        bundle = load_bundle(route.tls_cert, route.tls_key) if route.mode is Mode.L7 else None
        state = state.with_entry(wanted.listener, Entry(route, bundle, assumed(route)))
    return state


async def restore(store: Store, runtime: RuntimeDir, addrs: frozenset[str]) -> tuple[State, list[RouteKey]]:
    """The state that the database holds, and the routes whose backends could not be asked."""
    stored = store.load()
    for lost in {route.listener for route in stored.routes} - addrs:
        log.warning("routes of a listener that is not configured any more are left out", listener=lost)
    kept = [route for route in stored.routes if route.listener in addrs]
    findings = await asyncio.gather(*(find_out(each.route, assumed(each.route)) for each in kept))
    entries = {
        each.key: Entry(each.route, _bundle(each, runtime), finding.upstream)
        for each, finding in zip(kept, findings, strict=True)
    }
    limits = {addr: limit for addr, limit in stored.limits.items() if addr in addrs}
    doubtful = [each.key for each, finding in zip(kept, findings, strict=True) if not finding.certain]
    return State(entries, stored.firewall, limits), doubtful


def _bundle(stored: StoredRoute, runtime: RuntimeDir) -> Bundle | None:
    """The route's certificate as it is now; its last good copy when the files are gone or broken."""
    if stored.route.mode is not Mode.L7:
        return None
    try:
        return load_bundle(stored.route.tls_cert, stored.route.tls_key)
    except Refused as error:
        saved = runtime.saved_bundle(stored.bundle) if stored.bundle else None
        log.warning(
            "certificate unusable", hostname=stored.key.hostname, reason=str(error), served_from_copy=bool(saved)
        )
        return saved


async def without_the_refused(haproxy: HAProxy, state: State) -> State:
    """The state without the certificates that HAProxy does not take, so that they cost only their own routes."""
    if await haproxy.check(state) is None:
        return state
    kept = replace(state, entries={})
    for key, entry in state.entries.items():
        candidate = kept.with_entry(key.listener, entry)
        if reason := await haproxy.check(candidate):
            log.error("route left out", listener=key.listener, hostname=key.hostname, reason=reason)
            candidate = kept.with_entry(key.listener, replace(entry, bundle=None))
        kept = candidate
    return kept
