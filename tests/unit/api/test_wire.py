"""Models and messages are two forms of one thing."""

from datetime import UTC, datetime

import pytest
from google.protobuf.descriptor import Descriptor
from pydantic import BaseModel

from api import conditions, files, service, spec
from api.gen.mcp.v1 import files_pb2, service_pb2, spec_pb2
from api.model import Model
from api.secrecy import shown
from api.wire import definition_to_wire, from_wire, to_wire
from tests.unit.api.definitions import full

PAIRS: list[tuple[type[BaseModel], Descriptor]] = [
    (spec.ServiceSpec, spec_pb2.ServiceSpec.DESCRIPTOR),
    (spec.ComponentSpec, spec_pb2.ComponentSpec.DESCRIPTOR),
    (spec.HealthSpec, spec_pb2.HealthSpec.DESCRIPTOR),
    (spec.UpdateSpec, spec_pb2.UpdateSpec.DESCRIPTOR),
    (spec.RouteSpec, spec_pb2.RouteSpec.DESCRIPTOR),
    (spec.BuildSpec, spec_pb2.BuildSpec.DESCRIPTOR),
    (spec.SnapshotSpec, spec_pb2.SnapshotSpec.DESCRIPTOR),
    (conditions.Condition, service_pb2.Condition.DESCRIPTOR),
    (files.ServiceFile, files_pb2.ServiceFile.DESCRIPTOR),
    (files.FileTarget, files_pb2.FileTarget.DESCRIPTOR),
    (files.FoundFile, files_pb2.FoundFile.DESCRIPTOR),
    *[
        (getattr(service, name), descriptor)
        for name, descriptor in service_pb2.DESCRIPTOR.message_types_by_name.items()
        if name != "Condition"
    ],
]


@pytest.mark.parametrize(
    ("model", "descriptor"), PAIRS, ids=lambda value: value.__name__ if isinstance(value, type) else ""
)
def test_every_field_of_a_model_is_a_field_of_its_message(model: type[BaseModel], descriptor: Descriptor) -> None:
    assert [field.name for field in descriptor.fields] == list(model.model_fields)


def test_every_model_that_travels_has_a_message() -> None:
    travelling = {
        kind for module in (spec, service, conditions, files) for kind in vars(module).values() if _is_model(kind)
    }
    assert travelling - {Model} == {model for model, _ in PAIRS}


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Model)


NOW = datetime(2026, 11, 25, 9, 36, 0, 123456, tzinfo=UTC)


def full_service() -> service.Service:
    return service.Service(
        uid="u",
        name="hello",
        node="rift",
        generation=3,
        actor="alice",
        spec=shown(full()),
        restarts={"web": 2},
        created_at=NOW,
        updated_at=NOW,
        deletion_requested_at=NOW,
        suspended=service.Suspension(actor="ann", at=NOW, reason="the disk"),
        drained=True,
        finalizers=tuple(service.Finalizer),
        conditions=tuple(
            conditions.Condition(
                type=kind,
                status=conditions.Status.UNKNOWN,
                reason=conditions.Reason.PENDING,
                message="m",
                observed_generation=2,
                last_transition=NOW,
                next_look_at=NOW,
            )
            for kind in conditions.ConditionType
        ),
        ports=(service.PortAllocation(component="web", route="rest", port=10000, slot=1, contested=True),),
        certificates=(
            service.Certificate(
                hostname="a.example",
                issuer="CA",
                serial="1",
                fingerprint="f",
                not_before=NOW,
                not_after=NOW,
                renew_at=NOW,
                cert_path="/c",
                key_path="/k",
                error="e",
                failures=2,
                retry_at=NOW,
            ),
        ),
        components=(
            service.Component(
                name="web",
                container_name="hello-web",
                container_id="1",
                image="x:1",
                digest="sha256:1",
                slot=1,
                state=service.ContainerState.RUNNING,
                ready=True,
                generation=3,
                ports=(service.ServedPort(route="rest", port=10000),),
                restarts=2,
                exit_code=0,
                started_at=NOW,
                retry_at=NOW,
                message="m",
                last_words="w",
                failed_generation=2,
                failed_request="r",
                failure="f",
                stopped=True,
            ),
        ),
        claims=(
            service.RouteClaim(
                listener=":8443",
                hostname="a.example",
                component="web",
                route="rest",
                mode=spec.RouteMode.L7,
                backend="127.0.0.1:10000",
                certificate="f",
            ),
        ),
        files=(
            files.ServiceFile(
                path="etc/app.toml",
                revision=2,
                sha256="ab",
                size=3,
                mode=0o640,
                owner="1:2",
                managed=True,
                restart=True,
                component="web",
                actor="ann",
                at=NOW,
                generation=2,
                laid=True,
            ),
        ),
    )


def test_a_service_with_every_field_set_survives_the_wire() -> None:
    before = full_service()
    message = to_wire(before, service_pb2.Service())
    travelled = service_pb2.Service.FromString(message.SerializeToString())
    assert from_wire(travelled, service.Service) == before


def test_what_is_marked_as_secret_travels_to_the_agent_and_not_from_it() -> None:
    assert from_wire(definition_to_wire(full()), spec.ServiceSpec) == full()
    assert from_wire(to_wire(full(), spec_pb2.ServiceSpec()), spec.ServiceSpec) == shown(full()) != full()


def test_a_revision_survives_the_wire() -> None:
    before = service.Revision(
        generation=2, actor="ann", at=NOW, spec=shown(full()), note="restart of web", digests={"x:1": "sha256:1"}
    )
    assert from_wire(to_wire(before, service_pb2.Revision()), service.Revision) == before


def test_absence_and_emptiness_of_volumes_are_told_apart() -> None:
    for volumes in (None, ()):
        before = spec.ComponentSpec(name="web", volumes=volumes)
        assert from_wire(to_wire(before, spec_pb2.ComponentSpec()), spec.ComponentSpec) == before
