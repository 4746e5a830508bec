"""How a component finds the others of its service: `PEER_<COMPONENT>_<ROUTE>=host:port`, as `$PORT_<ROUTE>` is its own.

What is said must stay true from one container of the peer to the next, or each
update of one component would replace all the others. So it is the peer's name
in their network and the port inside, both of which its containers hand on. On
the host's network there is only the port that the peer has now. Pure.
"""

from collections import Counter
from collections.abc import Mapping

from api.resolve import UNNETWORKED, ResolvedComponent, ResolvedService
from api.service import Service


def variables(service: Service, resolved: ResolvedService, component: ResolvedComponent) -> Mapping[str, str]:
    """Where the component reaches each route of the others that it can reach; all of them have ports.

    A name that two routes would have, as `db` with a route `admin` and a component `db-admin`, is left out.
    """
    named = [
        (_name(peer, variable), _address(service, component, peer, route.key))
        for peer in resolved.components
        if peer.name != component.name
        for route in peer.routes
        for variable in route.variables
    ]
    often = Counter(name for name, _ in named)
    return {name: address for name, address in named if address and often[name] == 1}


def _name(peer: ResolvedComponent, variable: str) -> str:
    return f"PEER_{peer.name.upper().replace('-', '_')}{variable.removeprefix('PORT')}"


def _address(service: Service, component: ResolvedComponent, peer: ResolvedComponent, route: str) -> str:
    """`host:port`; empty where there is no way from one network to the other."""
    if component.network == "host" and peer.network != "none":
        known = service.component(peer.name)
        port = service.port(peer.name, route, known.slot if known else 0)
        host = "127.0.0.1"
    elif component.network == peer.network and peer.network not in UNNETWORKED:
        port = service.port(peer.name, route)
        host = peer.container_name
    else:
        return ""
    return f"{host}:{port.port}" if port else ""
