"""What is decided about files, for every state they can be in."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.conditions import Reason, Status
from api.files import ServiceFile
from api.service import Finalizer, Service
from api.spec import ComponentSpec, ServiceSpec
from reconcilers.files.model import NOTHING, Found, Observed
from reconcilers.files.plan import Confirm, Forget, LayDown, Remove, assume, looked_at, plan, plan_deletion
from tests.unit.reconcilers.memory import newborn

NOW = datetime(2026, 11, 25, tzinfo=UTC)
OWN = "0:0"
SPEC = ServiceSpec(name="hello", components=(ComponentSpec(name="web", image="i:1"),))


def file(path: str = "app.toml", **fields: object) -> ServiceFile:
    given = {"revision": 1, "sha256": "aa", "size": 2, "mode": 0o640, "actor": "ann", "at": NOW, "generation": 1}
    return ServiceFile.model_validate({"path": path, **given, **fields})


def service(*files: ServiceFile, **fields: object) -> Service:
    return newborn(SPEC, files=files, **fields)


def seen(failed: tuple[str, ...] = (), **found: Found) -> Observed:
    return Observed({path.replace("_", "."): one for path, one in found.items()}, OWN, frozenset(failed))


AS_PUSHED = Found("aa", 0o640, OWN)


def test_a_service_without_files_needs_nothing() -> None:
    assert plan(service(), seen()).outcome.reason is Reason.NOT_NEEDED


@pytest.mark.parametrize("found", [NOTHING, Found("aa", 0o600, OWN), Found("bb", 0o600, "1:1")])
def test_what_was_pushed_is_laid_down_once_whatever_lies_there(found: Found) -> None:
    (action,) = plan(service(file()), seen(app_toml=found)).actions
    assert isinstance(action, LayDown)
    assert action.follows
    assert action.describe() == "lay down app.toml (pushed by ann)"
    assert action.told() == "app.toml (pushed by ann)"
    assert action.changes == (found.sha256 != "aa")


def test_what_lies_there_as_it_was_pushed_is_not_written_again() -> None:
    pushed = service(file())
    (action,) = plan(pushed, seen(app_toml=AS_PUSHED)).actions
    assert (type(action), action.follows) == (Confirm, True)
    assert action.describe() == "find app.toml (it lies there as ann pushed it)"
    assert assume(pushed, [action]).files[0].laid


@pytest.mark.parametrize(
    ("managed", "found", "kind", "said"),
    [
        (True, AS_PUSHED, Remove, "remove app.toml (unpushed by ann)"),
        (
            True,
            Found("bb"),
            Forget,
            "forget app.toml (unpushed by ann, it is not as it was pushed: what lies there stays)",
        ),
        (True, Found(problem="a link"), Forget, "forget app.toml (unpushed by ann, it is not as it was pushed: what"),
        (True, NOTHING, Forget, "forget app.toml (unpushed by ann, nothing lies there)"),
        (False, AS_PUSHED, Forget, "forget app.toml (unpushed by ann, it is not managed: what lies there stays)"),
    ],
)
def test_what_was_taken_back_goes_as_with_its_service_and_is_no_drift(
    managed: bool, found: Found, kind: type, said: str
) -> None:
    before = service(file(managed=managed, removed=True), file("other", laid=True))
    assert looked_at(before) == before.files[:1]
    (action,) = plan(before, seen(app_toml=found)).actions
    assert (type(action), action.follows) == (kind, True)
    assert action.describe().startswith(said)
    assert [one.path for one in assume(before, [action]).files] == ["other"]


def test_what_cannot_be_looked_at_is_not_done_with() -> None:
    broken = Found(problem="cannot be looked at", reason=Reason.FILES_FAILED)
    found = plan(service(file(managed=True, removed=True)), seen(app_toml=broken))
    assert (found.actions, found.outcome.reason) == ((), Reason.FILES_FAILED)


def test_what_was_laid_down_and_is_not_managed_is_not_even_looked_at() -> None:
    laid = service(file(laid=True))
    assert looked_at(laid) == ()
    assert plan(laid, seen()).actions == ()
    assert plan(laid, seen()).outcome.reason is Reason.CONVERGED


@pytest.mark.parametrize(
    ("found", "fields", "cause"),
    [
        (Found("bb", 0o640, OWN), ["sha256"], "sha256 changed"),
        (Found("aa", 0o644, OWN), ["mode"], "mode changed"),
        (Found("aa", 0o640, "5:5"), ["owner"], "owner changed"),
        (Found("bb", 0o644, "5:5"), ["sha256", "mode", "owner"], "sha256, mode, owner changed"),
        (NOTHING, ["sha256", "mode", "owner"], "it was gone"),
    ],
)
def test_what_is_managed_is_kept_as_it_was_pushed(found: Found, fields: list[str], cause: str) -> None:
    managed = service(file(managed=True, laid=True))
    assert looked_at(managed) == managed.files
    (action,) = plan(managed, seen(app_toml=found)).actions
    assert not action.follows
    assert [change.path for change in action.differences()] == fields
    assert action.describe() == f"lay down app.toml ({cause})"
    assert plan(managed, seen(app_toml=AS_PUSHED)).actions == ()


def test_differences_are_told_as_a_person_writes_them() -> None:
    (action,) = plan(service(file(managed=True, laid=True, owner="7:8")), seen(app_toml=Found("aa", 0o7, OWN))).actions
    assert [(one.path, one.old, one.new) for one in action.differences()] == [
        ("mode", "0007", "0640"),
        ("owner", "0:0", "7:8"),
    ]


def test_an_obstacle_is_told_and_keeps_no_other_file_from_being_laid_down() -> None:
    both = service(file("a"), file("b"))
    found = plan(both, seen(a=Found(problem="a is a symbolic link"), b=NOTHING))
    assert [action.subject for action in found.actions] == ["b"]
    outcome = found.outcome
    assert (outcome.status, outcome.reason, outcome.message) == (Status.FALSE, Reason.CONFLICT, "a is a symbolic link")
    broken = Found(problem="cannot be looked at", reason=Reason.FILES_FAILED)
    assert plan(both, seen(a=broken, b=NOTHING)).outcome.reason is Reason.FILES_FAILED


def test_what_could_not_be_laid_down_comes_last() -> None:
    found = plan(service(file("a"), file("b")), seen(failed=("a",), a=NOTHING, b=NOTHING))
    assert [action.subject for action in found.actions] == ["b", "a"]


DELETING = {"deletion_requested_at": NOW, "finalizers": (Finalizer.FILES, Finalizer.PORTS)}


@pytest.mark.parametrize("left", [Finalizer.ROUTES, Finalizer.CONTAINERS])
def test_files_stay_as_long_as_somebody_may_read_them(left: Finalizer) -> None:
    going = service(file(managed=True, laid=True), deletion_requested_at=NOW, finalizers=(left, Finalizer.FILES))
    assert looked_at(going) == ()
    assert plan_deletion(going, seen()).outcome.reason is Reason.TERMINATING


@pytest.mark.parametrize(
    ("fields", "found", "kind", "said"),
    [
        ({"managed": True, "laid": True}, AS_PUSHED, Remove, "remove app.toml"),
        ({"managed": True, "laid": True}, Found("aa", 0o600, "5:5"), Remove, "remove app.toml"),
        ({"managed": True, "laid": True}, Found("bb"), Forget, "forget app.toml (it is not as it was pushed"),
        ({"managed": True, "laid": True}, Found(problem="a link"), Forget, "forget app.toml (it is not as it was"),
        ({"managed": True, "laid": True}, NOTHING, Forget, "forget app.toml (nothing lies there)"),
        ({"managed": True, "removed": True}, AS_PUSHED, Remove, "remove app.toml (unpushed by ann)"),
        ({"managed": True, "laid": False}, AS_PUSHED, Forget, "forget app.toml (it is not as it was pushed"),
        ({"managed": False, "laid": True}, AS_PUSHED, Forget, "forget app.toml (it is not managed: what lies there"),
    ],
)
def test_only_what_is_managed_and_as_it_was_goes_with_its_service(
    fields: dict[str, bool], found: Found, kind: type, said: str
) -> None:
    going = service(file(**fields), **DELETING)
    (action,) = plan_deletion(going, seen(app_toml=found)).actions
    assert type(action) is kind
    assert action.describe().startswith(said)
    gone = assume(going, [action])
    assert plan_deletion(gone, seen()).actions == ()
    assert plan_deletion(gone, seen()).outcome.reason is Reason.NOT_NEEDED


FILES = st.builds(
    file,
    st.sampled_from("abc"),
    sha256=st.sampled_from(["aa", "bb"]),
    managed=st.booleans(),
    laid=st.booleans(),
    owner=st.sampled_from(["", "1:1"]),
)
FOUND = st.builds(
    Found,
    st.sampled_from(["", "aa", "cc"]),
    st.sampled_from([0o640, 0o600]),
    st.sampled_from([OWN, "1:1"]),
    st.sampled_from(["", "", "a link"]),
)


@given(st.lists(FILES, unique_by=lambda one: one.path), st.dictionaries(st.sampled_from("abc"), FOUND, min_size=3))
def test_one_round_of_work_is_enough(files: list[ServiceFile], found: dict[str, Found]) -> None:
    before = service(*files)
    first = plan(before, Observed(found, OWN))
    assert {action.subject for action in first.actions} <= {one.path for one in looked_at(before)} | {
        one.path for one in files if one.laid
    }
    laid = {
        action.subject: Found(action.file.sha256, action.file.mode, action.file.owner or OWN)
        for action in first.actions
        if isinstance(action, LayDown)
    }
    assert plan(assume(before, first.actions), Observed(found | laid, OWN)).actions == ()
