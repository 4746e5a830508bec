"""Adds routes to a running HAProxy by its runtime API, which spares the reload and its cost for every certificate.

This is only faster: whatever it cannot do, or fails at, a reload does, whose configuration always says everything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mcproxy.model import Bundle, Entry, RouteKey, State, split_backend
from mcproxy.render import SERVER, SPARES, Kind, Rendered, file_name, server_kind, spare_name


@dataclass(frozen=True)
class Command:
    """A line for HAProxy's control socket and what its answer must hold to be good; "" means nothing at all."""

    text: str
    good: str = ""

    def is_good(self, answer: str) -> bool:
        """Whether HAProxy did as it was told (management guide, 9.3; it has no status codes)."""
        return self.good in answer if self.good else not answer.strip()


def additions(before: State, after: State) -> Mapping[RouteKey, Entry] | None:
    """The new routes, when they are all that has changed."""
    if before.firewall != after.firewall or before.limits != after.limits:
        return None
    if any(after.entries.get(key) != entry for key, entry in before.entries.items()):
        return None
    return {key: entry for key, entry in after.entries.items() if key not in before.entries}


class Spares:
    """The spare backends of one running worker, and which routes were put into them."""

    def __init__(self, rendered: Rendered) -> None:
        self._lookups = rendered.lookups
        self._loaded = set(rendered.files)
        self._free = {
            (addr, kind): [spare_name(addr, kind, number) for number in range(SPARES)]
            for addr in rendered.lookups
            for kind in Kind
        }
        self._routes: dict[str, RouteKey] = {}

    def route_key(self, backend: str) -> RouteKey | None:
        """The route in a spare backend, None for other backends."""
        return self._routes.get(backend)

    def take(self, added: Mapping[RouteKey, Entry]) -> list[Command] | None:
        """What puts these routes into spare backends, in order; None when there are none that would do.

        What was taken is gone, whether or not the commands succeed.
        """
        commands: list[Command] = []
        for key, entry in added.items():
            kind = server_kind(entry)
            free = self._free[key.listener, kind] if kind else []
            if not free:
                return None
            backend = free.pop()
            self._routes[backend] = key
            commands.extend(self._commands(key, entry, backend))
        return commands

    def _commands(self, key: RouteKey, entry: Entry, backend: str) -> Iterable[Command]:
        lookup = self._lookups[key.listener]
        if entry.bundle is not None:
            yield from self._certificate(key, entry.bundle, lookup.certificates)
        _, port = split_backend(entry.route.backend)
        server = f"set server {backend}/{SERVER}"
        yield Command(f"{server} addr {entry.upstream.address} port {port}", "by 'stats socket command'")
        yield Command(f"{server} state ready")
        # The name comes last: it is what makes the route seen.
        yield Command(f"add map {lookup.names} {key.hostname} {backend}")

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
