"""What lists show of a service is the same, whether or not the rest of it came along."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from api.brief import brief
from api.conditions import Condition, ConditionType, Reason, Status
from api.service import Component, ContainerState, Service, Suspension
from api.spec import ServiceSpec
from cli.views import registry_table, services_table
from tests.unit.api import definitions

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)

conditions = st.lists(
    st.builds(
        Condition,
        type=st.sampled_from(ConditionType),
        status=st.sampled_from(Status),
        reason=st.sampled_from(Reason),
        message=st.sampled_from(["", "it is gone"]),
        observed_generation=st.integers(1, 2),
        last_transition=st.just(NOW),
    ),
    unique_by=lambda condition: condition.type,
)


@st.composite
def services(draw: st.DrawFn) -> Service:
    spec: ServiceSpec = draw(definitions.services)
    names = [component.name for component in spec.components]
    seen = draw(st.lists(st.sampled_from([*names, "left-over"]), unique=True))
    return Service(
        uid="1",
        name=spec.name,
        node="rift",
        generation=draw(st.integers(1, 2)),
        actor="ann",
        spec=spec,
        created_at=NOW - timedelta(days=1),
        updated_at=NOW - timedelta(hours=1),
        deletion_requested_at=draw(st.sampled_from([None, NOW])),
        suspended=draw(st.sampled_from([None, Suspension(actor="ann", at=NOW, reason="the disk")])),
        drained=draw(st.booleans()),
        conditions=tuple(draw(conditions)),
        components=tuple(
            Component(
                name=name,
                container_name=f"{spec.name}-{name}",
                state=draw(st.sampled_from(ContainerState)),
                ready=draw(st.booleans()),
                image=draw(st.sampled_from(["", "hello:v2"])),
            )
            for name in seen
        ),
    )


@given(st.lists(services(), max_size=3), st.booleans())
def test_a_list_shows_the_same_of_what_is_brief(whole: list[Service], several: bool) -> None:
    short = [brief(service) for service in whole]
    assert services_table(short, NOW, nodes=several) == services_table(whole, NOW, nodes=several)
    assert registry_table(short, NOW) == registry_table(whole, NOW)


@given(services())
def test_what_is_brief_is_so_already(service: Service) -> None:
    short = brief(service)
    assert brief(short) == short
    assert (short.ports, short.certificates, short.claims, short.files) == ((), (), (), ())
