"""One service on one screen: the questions an operator asks, and where the answers stand."""

from datetime import UTC, datetime, timedelta

from api.conditions import Condition, ConditionType, Reason, Status, summarize
from api.files import ServiceFile
from api.service import (
    Certificate,
    Component,
    ContainerState,
    Event,
    FieldChange,
    Finalizer,
    PlannedAction,
    RouteClaim,
    Service,
)
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from cli.output import Row
from cli.status_view import headline, origin, rows

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def coming(**time: float) -> datetime:
    return NOW + timedelta(**time)


def condition(
    kind: ConditionType,
    status: Status = Status.TRUE,
    reason: Reason = Reason.CONVERGED,
    message: str = "",
    **more: object,
) -> Condition:
    fixed = {"type": kind, "status": status, "reason": reason, "message": message}
    return Condition.model_validate({"observed_generation": 4, "last_transition": ago(seconds=42), **fixed, **more})


def service(*conditions: Condition, **known: object) -> Service:
    """Generation 4 of hello, whose summary follows from `conditions`; what is not among them is well."""
    by_type: dict[ConditionType, Condition] = {
        kind: condition(kind) for kind in ConditionType if kind is not ConditionType.FLAPPING
    }
    by_type |= {one.type: one for one in conditions}
    parts = tuple(by_type[kind] for kind in ConditionType if kind in by_type and kind is not ConditionType.READY)
    summary = condition(ConditionType.READY, *summarize(parts, 4))
    spec = ServiceSpec(
        name="hello",
        components=(ComponentSpec(name="web", image="i:v1", routes=(RouteSpec(port=8443, mode=RouteMode.L7),)),),
    )
    fixed = {"uid": "u", "name": "hello", "node": "rift", "generation": 4, "actor": "alice@mars", "spec": spec}
    times = {"created_at": ago(days=2), "updated_at": ago(minutes=3)}
    return Service.model_validate({**fixed, **times, "conditions": (*parts, summary), **known})


def web(**known: object) -> Component:
    fixed = {"name": "web", "container_name": "hello-web", "image": "i:v1", "state": "running", "generation": 4}
    return Component.model_validate({"started_at": ago(minutes=3), **fixed, **known})


def page(of: Service, *actions: PlannedAction, unplanned: str = "", events: tuple[Event, ...] = ()) -> list[str]:
    found = list(rows(of, actions, unplanned, events, NOW))
    width = max(len(row.label) for row in found)
    return [f"{row.label.ljust(width)}  {row.text}" for row in found]


def test_a_service_that_is_well_takes_a_few_lines() -> None:
    claim = RouteClaim(
        listener=":8443",
        hostname="hello.svc.example",
        component="web",
        route="default",
        mode=RouteMode.L7,
        backend="127.0.0.1:19722",
    )
    certificate = Certificate(
        hostname="hello.svc.example",
        issuer="CA",
        serial="1",
        fingerprint="f",
        not_before=NOW,
        not_after=coming(days=89),
        renew_at=coming(days=59),
        cert_path="",
        key_path="",
    )
    digest = "sha256:" + "1a2b3c4d5e6f" * 5
    known = service(components=(web(ready=True, digest=digest),), claims=(claim,), certificates=(certificate,))
    assert headline(known, NOW) == Row("", "hello on rift: ready for 42s", "green")
    assert origin(known, NOW).text == "generation 4, asked for by alice@mars 3m ago; first made 2d ago"
    event = Event(
        id=1,
        at=ago(seconds=5),
        service="hello",
        generation=4,
        actor="containers",
        kind="started",
        message="hello-web: it exited with 137",
        drift=True,
    )
    wished = {"at": ago(days=3), "drift": False, "kind": "created", "message": "hello-web, generation 4 by alice@mars"}
    assert page(known, events=(event, event.model_copy(update=wished))) == [
        "web     running for 3m, ready",
        "        hello-web from i:v1 (sha256:1a2b3c4d5e6f)",
        "routes  hello.svc.example:8443 -> 127.0.0.1:19722 (l7, web/default)",
        "          certificate of CA until 2027-02-22, renewed in 59d",
        "events  11:59:55 containers drift: started hello-web: it exited with 137",
        "        2026-11-22 containers created hello-web",
    ]


def test_a_crash_loop_shows_how_it_ended_what_it_said_and_when_it_is_started_again() -> None:
    failed = condition(
        ConditionType.CONTAINERS_RUNNING,
        Status.FALSE,
        Reason.CONTAINER_FAILED,
        "hello-web exited with 1, 4 times in a row",
        next_look_at=coming(seconds=28),
    )
    words = "\n".join(f"line {number}" for number in range(7))
    ended = {"state": "exited", "exit_code": 1, "restarts": 3, "retry_at": coming(seconds=28), "last_words": words}
    known = service(failed, components=(web(**ended),))
    assert headline(known, NOW) == Row("", "hello on rift: not ready for 42s: ContainerFailed", "red")
    assert page(known) == [
        "why     containers ContainerFailed for 42s: hello-web exited with 1, 4 times in a row (next look in 28s)",
        "web     exited with 1, started 3m ago; restarted 3 times; started again in 28s",
        "        hello-web from i:v1",
        *(f"        | line {number}" for number in range(2, 7)),
        "routes  web:8443 is not routed yet (l7)",
    ]


def test_a_rollout_that_failed_shows_what_serves_and_why_the_new_one_does_not() -> None:
    failed = condition(ConditionType.CONTAINERS_RUNNING, Status.FALSE, Reason.ROLLOUT_FAILED, "gave up")
    known = {
        "ready": True,
        "generation": 3,
        "failed_generation": 4,
        "failure": "not ready within 5m",
        "last_words": "boom",
    }
    assert page(service(failed, components=(web(**known),)))[1:5] == [
        "web     running for 3m, ready; made in generation 3",
        "        hello-web from i:v1",
        "        generation 4 was given up: not ready within 5m",
        "        | boom",
    ]


def test_what_nobody_can_look_at_was_last_seen_so() -> None:
    unknown = condition(
        ConditionType.CONTAINERS_RUNNING,
        Status.UNKNOWN,
        Reason.ENGINE_UNREACHABLE,
        "podman cannot be asked",
        next_look_at=ago(seconds=1),
    )
    lines = page(service(unknown, components=(web(ready=True),)), unplanned="podman cannot be asked")
    assert lines[:2] == [
        "why     containers EngineUnreachable for 42s: podman cannot be asked",
        "web     last seen running for 3m, ready",
    ]
    assert lines[-1] == "next    podman cannot be asked"


def test_drift_is_shown_by_field() -> None:
    action = PlannedAction(
        resource="containers",
        verb="replaced",
        subject="hello-web",
        description="replace hello-web: env changed",
        fields=(
            FieldChange(path="components[web].env.LEVEL", old='"debug"', new='"info"'),
            FieldChange(path="components[web].memory", old=None, new='"1G"'),
        ),
    )
    assert page(service(components=(web(ready=True),)), action)[-3:] == [
        "next    containers: replace hello-web: env changed",
        '          env.LEVEL: wanted "info", found "debug"',
        '          memory: wanted "1G", found nothing',
    ]


def test_a_service_that_flaps_may_be_ready_and_says_so_once_it_does_not_nothing() -> None:
    flaps = condition(
        ConditionType.FLAPPING, Status.TRUE, Reason.FLAPPING, "mended often", next_look_at=coming(minutes=9)
    )
    known = service(flaps, components=(web(ready=True),))
    assert headline(known, NOW).text == "hello on rift: ready for 42s"
    assert page(known)[0] == "why     Flapping for 42s: mended often (over in 9m, if nothing happens until then)"
    calm = condition(ConditionType.FLAPPING, Status.FALSE, Reason.CONVERGED, "nothing had to be mended for 10 minutes")
    assert page(service(calm, components=(web(ready=True),)))[0].startswith("web ")


def test_what_is_good_may_have_a_note() -> None:
    shadow = condition(ConditionType.CERTIFICATES_READY, message="serves until Friday, but no other can be had")
    assert page(service(shadow))[:2] == [
        "note    certs: serves until Friday, but no other can be had",
        "web     hello-web was not made yet",
    ]


def test_a_generation_that_nobody_looked_at_and_one_that_some_did() -> None:
    stale = [condition(kind, observed_generation=3) for kind in ConditionType if kind is not ConditionType.FLAPPING]
    known = service(*stale[1:])
    conditions = tuple(
        one.model_copy(update={"observed_generation": 3}) if one.type is ConditionType.READY else one
        for one in known.conditions
    )
    known = known.model_copy(update={"conditions": conditions})
    assert headline(known, NOW).text == "hello on rift: generation 4 was not looked at yet"
    assert page(known)[0] == "why     certs not looked at in generation 4 yet"


def test_a_service_on_its_way_out_and_one_that_is_stopped() -> None:
    leaving = service(deletion_requested_at=ago(seconds=9), finalizers=(Finalizer.CERTS, Finalizer.PORTS))
    assert headline(leaving, NOW).text == ("hello on rift: being deleted for 9s, still to be taken away: certs, ports")
    stopped = condition(ConditionType.CONTAINERS_RUNNING, Status.FALSE, Reason.STOPPED, "stopped, as defined")
    known = service(stopped, components=(web(state=ContainerState.EXITED, exit_code=0),))
    assert headline(known, NOW).text == "hello on rift: stopped for 42s, as defined"
    assert page(known)[0] == "web     exited with 0, started 3m ago"


def test_a_certificate_that_cannot_be_had_says_why_and_when_it_is_tried_again() -> None:
    none = Certificate(
        hostname="hello.svc.example",
        issuer="CA",
        serial="",
        fingerprint="",
        not_before=NOW,
        not_after=NOW,
        renew_at=NOW,
        cert_path="",
        key_path="",
        error="the CA is away",
        failures=2,
        retry_at=coming(hours=1),
    )
    expired = none.model_copy(update={"fingerprint": "f", "not_after": ago(days=1), "error": ""})
    assert page(service(certificates=(none,)))[-1] == (
        "        hello.svc.example: no other certificate: the CA is away; tried again in 1h"
    )
    assert (
        page(service(certificates=(expired,)))[-1]
        == "        hello.svc.example: certificate of CA EXPIRED, to be renewed now"
    )


def pushed(path: str, **more: object) -> ServiceFile:
    fixed = {"revision": 1, "sha256": "aa", "size": 12, "mode": 0o640, "actor": "ann", "generation": 1}
    return ServiceFile.model_validate({"path": path, "at": ago(minutes=2), **fixed, "laid": True, **more})


def test_files_that_do_not_lie_in_their_places_come_before_those_that_do() -> None:
    failed = condition(ConditionType.FILES_IN_PLACE, Status.FALSE, Reason.CONFLICT, "z is a symbolic link")
    many = tuple(pushed(f"f{number}") for number in range(9))
    known = service(failed, files=(*many, pushed("z", laid=False, managed=True, owner="1:2", size=3 << 20)))
    lines = page(known)
    found = lines.index("files   z: 3.0 MiB, 0640, 1:2, managed, not laid down: Conflict; pushed 2m ago by ann")
    assert lines[found + 1] == "        f0: 12 B, 0640, laid down; pushed 2m ago by ann"
    assert lines[found + 8] == "        and 2 more: mcp files hello"
    going = service(files=(pushed("a", laid=False, removed=True),))
    assert "files   a: 12 B, 0640, unpushed, not done yet; unpushed 2m ago by ann" in page(going)
