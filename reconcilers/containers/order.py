"""What is started before what: a component waits for those that it depends on, and its service's for theirs. Pure."""

from api.resolve import ResolvedComponent, ResolvedService
from reconcilers.containers.lifecycle import completed
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.world import World


def awaited(resolved: ResolvedService, component: ResolvedComponent, world: World) -> str:
    """What must be ready before a container of the component is started, in words; empty where nothing is missing."""
    for service, why in sorted(world.unready.items()):
        return f"service {service}, which {why}"
    owned = world.observation.owned(world.node, resolved.name)
    for other in resolved.components:
        mine = [container for container in owned if container.component == other.name]
        if other.name in component.depends_on and not any(_is_ready(other, one, world) for one in mine):
            return f"component {other.name}, which is not ready"
    return ""


def _is_ready(component: ResolvedComponent, container: ContainerObservation, world: World) -> bool:
    # A task that others wait for is done when it has ended well.
    return container.id in world.ready or completed(component, container)
