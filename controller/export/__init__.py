"""A way out: files that run a service without us, made of what MCP itself asks the engine for. Pure."""

from collections.abc import Iterable

from api.errors import Refused
from api.inspection import Exported, ExportFormat
from api.resolve import ResolvedService
from api.secrecy import looks_secret
from api.service import Service
from controller.export import kube, quadlet
from controller.export.parts import Part, parts


def export(
    service: Service, resolved: ResolvedService, node: str, form: ExportFormat, needed: Iterable[str] = ()
) -> Exported:
    """The service as it is defined, at the ports that it has now; `needed` are containers that must run before.

    Raises Refused while a route has no port.
    """
    found = parts(service, resolved, node)
    if missing := [part.component.name for part in found if part.missing]:
        raise Refused(f"routes of {', '.join(missing)} have no port yet: export the service once it is ready")
    files, lost = (quadlet if form is ExportFormat.QUADLET else kube).render(resolved, found, tuple(needed))
    return Exported(files=files, warnings=(*_of_secrets(found), *_of_routes(resolved), *lost))


def _of_secrets(found: Iterable[Part]) -> Iterable[str]:
    names = sorted({name for part in found for name in part.env if looks_secret(name)})
    if names:
        yield f"the files hold what looks secret ({', '.join(names)}): keep them from others"


def _of_routes(resolved: ResolvedService) -> Iterable[str]:
    for route in resolved.routes:
        yield (
            f"the route {route.hostname}{route.listener} ({route.mode}) to {route.component} is not carried over: "
            "mc-proxy has to be told of it, and whoever follows us renews its certificate"
        )
