"""What is started before what: a component waits for those that it depends on, and its service's for theirs. Pure."""

from collections.abc import Iterable

from api.resolve import ResolvedComponent, ResolvedService
from reconcilers.containers.lifecycle import completed
from reconcilers.containers.world import World


def awaited(resolved: ResolvedService, component: ResolvedComponent, world: World) -> str:
    """What must be ready before a container of the component is started, in words; empty where nothing is missing."""
    for service, why in sorted(world.unready.items()):
        return f"service {service}, which {why}"
    needed = (other for other in resolved.components if other.name in component.depends_on)
    for other in unready(resolved, needed, world):
        return f"component {other.name}, which is {'not ready' if other.active else 'stopped'}"
    return ""


def unready(
    resolved: ResolvedService, components: Iterable[ResolvedComponent], world: World
) -> tuple[ResolvedComponent, ...]:
    """Those of the service's components that nobody may be started upon yet."""
    owned = world.observation.owned(world.node, resolved.name)
    # A task that others wait for is done when it has ended well.
    return tuple(
        component
        for component in components
        if not any(
            one.component == component.name and (one.id in world.ready or completed(component, one)) for one in owned
        )
    )
