"""Adds, moves and removes routes in a running HAProxy by its runtime API, which spares the reload and its cost.

A route that moves is led to another backend rather than its server to another address: HAProxy would send new requests
over connections that lead to the old one. Also, no client's connection ends with the old worker.

This is only faster: whatever it cannot do, or fails at, a reload does, whose configuration always says everything.

A worker that only finishes its connections since a reload may still get one more request on each. Of all that makes up
its configuration HAProxy lets only maps be changed by then, so that is how such a request finds the backend of today.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mcproxy.model import Bundle, Entry, RouteKey, State, split_backend
from mcproxy.render import (
    SERVER,
    SPARES,
    Kind,
    Rendered,
    backend_name,
    elsewhere_name,
    file_name,
    server_kind,
    spare_name,
)


@dataclass(frozen=True)
class Command:
    """A line for HAProxy's control socket and what its answer must hold to be good; "" means nothing at all."""

    text: str
    good: str = ""

    def is_good(self, answer: str) -> bool:
        """Whether HAProxy did as it was told (management guide, 9.3; it has no status codes)."""
        return self.good in answer if self.good else not answer.strip()


def changes(before: State, after: State) -> Mapping[RouteKey, Entry | None]:
    """The routes that are new, other or (None) gone."""
    keys = [*after.entries, *(key for key in before.entries if key not in after.entries)]
    return {key: after.entries.get(key) for key in keys if before.entries.get(key) != after.entries.get(key)}


class Spares:
    """The spare backends of one running worker, and which backend each route has in it."""

    def __init__(self, state: State, rendered: Rendered) -> None:
        self._lookups = rendered.lookups
        self._loaded = set(rendered.files)
        self._free = {
            (addr, kind): [spare_name(addr, kind, number) for number in range(SPARES)]
            for addr in rendered.lookups
            for kind in Kind
        }
        self._routes: dict[str, RouteKey] = {}
        # The certificate that a name was first shown stays, as taking it away is not worth the trouble.
        self._shown = {key: entry.bundle.digest for key, entry in state.entries.items() if entry.bundle is not None}
        self.backends = {
            key: backend_name(key, entry.route.mode) for key, entry in state.entries.items() if entry.served
        }
        """Where each route leads in this worker."""

    def route_key(self, backend: str) -> RouteKey | None:
        """The route in a spare backend, None for other backends."""
        return self._routes.get(backend)

    def take(self, changed: Mapping[RouteKey, Entry | None]) -> list[Command] | None:
        """What makes these changes, in order, using up spare backends; None when that cannot be.

        What was taken is gone, whether or not the commands succeed.
        """
        commands: list[Command] = []
        for key, entry in changed.items():
            if entry is None:
                commands.extend(self._removal(key))
                continue
            kind = server_kind(entry)
            free = self._free[key.listener, kind] if kind else []
            shown = self._shown.get(key)
            if not free or (entry.bundle and shown not in (None, entry.bundle.digest)):
                return None
            backend = free.pop()
            self._routes[backend] = key
            commands.extend(self._commands(key, entry, backend))
        return commands

    def elsewhere(self, changed: Mapping[RouteKey, Entry | None]) -> Iterator[str]:
        """What leads requests for these routes elsewhere, in a worker that only finishes its connections."""
        for key, entry in changed.items():
            lookup, kind = self._lookups[key.listener], server_kind(entry) if entry else None
            # No new connection is made to this worker, as l4 routes would need.
            if key not in self._shown or (entry is not None and kind not in (Kind.H1, Kind.H2C)):
                continue
            # Not set, as a name may be there or not.
            yield f"del map {lookup.names} {key.hostname}"
            if entry is not None and kind is not None:
                _, port = split_backend(entry.route.backend)
                yield f"del map {lookup.elsewhere} {key.hostname}"
                yield f"add map {lookup.elsewhere} {key.hostname} {entry.upstream.address}@{port}"
                yield f"add map {lookup.names} {key.hostname} {elsewhere_name(key.listener, kind)}"

    def _removal(self, key: RouteKey) -> Iterable[Command]:
        if self.backends.pop(key, None) is not None:
            yield Command(f"del map {self._lookups[key.listener].names} {key.hostname}")

    def _commands(self, key: RouteKey, entry: Entry, backend: str) -> Iterable[Command]:
        lookup = self._lookups[key.listener]
        known, self.backends[key] = key in self.backends, backend
        if entry.bundle is not None and key not in self._shown:
            self._shown[key] = entry.bundle.digest
            yield from self._certificate(key, entry.bundle, lookup.certificates)
        _, port = split_backend(entry.route.backend)
        server = f"set server {backend}/{SERVER}"
        yield Command(f"{server} addr {entry.upstream.address} port {port}", "by 'stats socket command'")
        yield Command(f"{server} state ready")
        # The name comes last: it is what makes the change seen.
        yield Command(f"{'set' if known else 'add'} map {lookup.names} {key.hostname} {backend}")

    def _certificate(self, key: RouteKey, bundle: Bundle, shown: str) -> Iterable[Command]:
        name = file_name(bundle.digest, "pem")
        path = f"{shown.rpartition('/')[0]}/{name}"
        if name not in self._loaded:
            self._loaded.add(name)
            # A payload ends with its first empty line.
            pem = "\n".join(filter(None, bundle.pem.decode().split("\n")))
            yield Command(f"new ssl cert {path}", "New empty certificate store")
            yield Command(f"set ssl cert {path} <<\n{pem}\n", "Transaction created")
            yield Command(f"commit ssl cert {path}", "Success!")
        yield Command(f"add ssl crt-list {shown} <<\n{path} {key.hostname}\n", "Success!")
