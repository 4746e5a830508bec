"""What a list shows of a service: of a thousand, the rest is most of what would be sent and read for nothing."""

from api.conditions import ConditionType
from api.service import Service
from api.spec import ComponentSpec, ServiceSpec

_SHOWN = frozenset((ConditionType.READY, ConditionType.CONTAINERS_RUNNING, ConditionType.FLAPPING))


def brief(service: Service) -> Service:
    """The service with its components, whether each is to run and does, and how far it is; all else is left out.

    It is for lists alone: what it does not say is not known to be absent.
    """
    spec = service.spec
    components = tuple(
        ComponentSpec(name=one.name, active=one.active, image=one.image, version=one.version) for one in spec.components
    )
    return Service(
        uid=service.uid,
        name=service.name,
        node=service.node,
        generation=service.generation,
        actor=service.actor,
        spec=ServiceSpec(name=spec.name, active=spec.active, version=spec.version, components=components),
        created_at=service.created_at,
        updated_at=service.updated_at,
        deletion_requested_at=service.deletion_requested_at,
        suspended=service.suspended,
        drained=service.drained,
        conditions=tuple(condition for condition in service.conditions if condition.type in _SHOWN),
        components=service.components,
    )
