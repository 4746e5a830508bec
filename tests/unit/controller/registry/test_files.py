"""Files that were pushed: each content once, the last ones of each path, and the way back."""

import hashlib
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from api.conditions import ConditionType, Reason, Status
from api.errors import NotFound, Refused
from api.files import FileTarget, ServiceFile
from api.service import Change, Finalizer
from controller.registry import ChangeKind, Registry
from controller.registry.engines import Mode
from controller.registry.tables import FileContentRow
from tests.unit.controller.registry.samples import condition, spec


async def push(registry: Registry, content: bytes, path: str = "app.toml", **fields: object) -> ServiceFile:
    target = FileTarget.model_validate({"service": "hello", "path": path, **fields})
    return await registry.files.push(target, content, actor="ann", keep=3)


async def contents(registry: Registry) -> int:
    query = select(func.count()).select_from(FileContentRow)
    return await registry._store.run(lambda transaction: transaction.session.scalar(query) or 0, Mode.READ)


async def current(registry: Registry, path: str = "app.toml") -> ServiceFile:
    service = await registry.service("hello")
    assert service is not None
    file = service.file(path)
    assert file is not None
    return file


async def test_a_push_is_kept_and_seen_with_its_service(registry: Registry, changes) -> None:
    await registry.apply(spec(), actor="ann")
    await registry.report("hello", condition(ConditionType.FILES_IN_PLACE, Status.FALSE, Reason.FILES_FAILED, "full"))
    await changes()
    pushed = await push(registry, b"one", mode=0o600, owner="1:2", managed=True)
    assert {change.kind for change in await changes()} == {ChangeKind.FILES, ChangeKind.EVENT}
    service = await registry.service("hello")
    assert service is not None
    assert service.files == (pushed,)
    assert service.generation == 1
    assert pushed.model_dump(exclude={"at"}) == {
        "path": "app.toml",
        "revision": 1,
        "sha256": hashlib.sha256(b"one").hexdigest(),
        "size": 3,
        "mode": 0o600,
        "owner": "1:2",
        "managed": True,
        "restart": False,
        "component": "",
        "actor": "ann",
        "generation": 1,
        "laid": False,
        "removed": False,
    }
    assert pushed.at.tzinfo is UTC
    assert datetime.now(UTC) >= pushed.at
    # What was found before is no answer to this push.
    found = service.condition(ConditionType.FILES_IN_PLACE)
    assert found is not None
    assert (found.status, found.reason) == (Status.UNKNOWN, Reason.PENDING)
    assert await registry.files.content(pushed.sha256) == b"one"
    assert await registry.files.content("0" * 64) is None


async def test_who_pushes_where_nothing_is_hears_it(registry: Registry) -> None:
    with pytest.raises(NotFound, match="there is no service"):
        await push(registry, b"one")
    await registry.apply(spec(), actor="ann")
    await registry.request_deletion("hello", actor="ann")
    with pytest.raises(Refused, match="being deleted"):
        await push(registry, b"one")
    assert await contents(registry) == 0


async def test_a_content_is_kept_once_and_as_long_as_any_file_has_it(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    for path in ("a", "b", "c"):
        await push(registry, b"same", path)
    assert await contents(registry) == 1
    for number in range(6):
        await push(registry, b"%d" % number, "a")
    history = [file.revision for file in await registry.files.history("hello") if file.path == "a"]
    assert history == [4, 5, 6, 7]
    assert await contents(registry) == 5
    await registry.files.forget("hello", "a")
    assert [file.path for file in await registry.files.history("hello")] == ["b", "c"]
    assert await contents(registry) == 1


async def test_the_same_once_more_is_laid_down_once_more_and_no_other_revision(registry: Registry, changes) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one")
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    assert (await current(registry)).laid
    again = await push(registry, b"one")
    assert (again.revision, again.laid) == (1, False)
    other = await push(registry, b"one", mode=0o600)
    assert other.revision == 2
    await changes()
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    await registry.files.laid("hello", "nobody", 1, changed=True)
    assert await changes() == []
    assert not (await current(registry)).laid


async def test_a_restart_is_counted_once_the_changed_file_lies_there_and_never_for_the_same(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one", restart=True)
    assert (await registry.service("hello")).restarts == {}  # type: ignore[union-attr]  # it is there
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    service = await registry.service("hello")
    assert service is not None
    assert (service.restarts, service.generation, service.actor) == ({"web": 1}, 2, "ann")
    await push(registry, b"one", restart=True)
    await registry.files.laid("hello", "app.toml", 1, changed=False)
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    service = await registry.service("hello")
    assert service is not None
    assert service.restarts == {"web": 1}
    # The agent ended between laying it down and noting it: the disk had it already.
    await push(registry, b"two", restart=True, component="web")
    await registry.files.laid("hello", "app.toml", 2, changed=False)
    service = await registry.service("hello")
    assert service is not None
    assert service.restarts == {"web": 2}


@pytest.mark.parametrize(
    ("first", "second", "restarts"),
    [
        ({"restart": True}, {}, {"web": 1, "task": 1}),
        ({"restart": True, "component": "web"}, {}, {"web": 1}),
        ({"restart": True, "component": "web"}, {"restart": True, "component": "web"}, {"web": 1}),
        ({"restart": True, "component": "web"}, {"restart": True, "component": "task"}, {"web": 1, "task": 1}),
        ({"restart": True}, {"restart": True, "component": "task"}, {"web": 1, "task": 1}),
        ({}, {"restart": True, "component": "task"}, {"task": 1}),
    ],
)
@pytest.mark.parametrize("content", [b"two", b"three"])
async def test_a_restart_that_is_overtaken_is_counted_with_what_overtakes_it(
    registry: Registry, content: bytes, first: dict[str, object], second: dict[str, object], restarts: dict[str, int]
) -> None:
    components = tuple(spec().components[0].model_copy(update={"name": name, "routes": ()}) for name in ("web", "task"))
    await registry.apply(spec().model_copy(update={"components": components}), actor="ann")
    await push(registry, b"one")
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    overtaken = await push(registry, b"two", **first)
    overtaking = await push(registry, content, **second)
    for file in (overtaken, overtaking):
        await registry.files.laid("hello", "app.toml", file.revision, changed=True)
    service = await registry.service("hello")
    assert service is not None
    assert service.restarts == restarts
    # It is over with that.
    later = await push(registry, b"four")
    assert (later.restart, later.component) == (False, "")


async def test_who_takes_back_what_is_not_laid_down_yet_wants_no_restart(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one", restart=True)
    assert not (await take_back(registry)).restart
    assert not (await push(registry, b"two")).restart


async def test_what_is_stopped_is_not_restarted(registry: Registry) -> None:
    await registry.apply(spec().model_copy(update={"active": False}), actor="ann")
    await push(registry, b"one", restart=True)
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    assert (await current(registry)).laid
    service = await registry.service("hello")
    assert service is not None
    assert (service.restarts, service.generation) == ({}, 1)


async def test_a_service_that_goes_takes_its_files_along(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one")
    await registry.request_deletion("hello", actor="ann")
    for finalizer in Finalizer:
        await registry.remove_finalizer("hello", finalizer)
    assert await registry.files.history("hello") == ()
    await registry.apply(spec("other"), actor="ann")
    await registry.files.push(FileTarget(service="other", path="x"), b"two", actor="ann", keep=1)
    assert await contents(registry) == 1


async def test_files_come_back_as_they_were_in_an_earlier_generation(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one", managed=True)
    await push(registry, b"same", "same")
    await registry.apply(spec(version="v2"), actor="ann")
    await push(registry, b"two", mode=0o600)
    await push(registry, b"late", "late")
    await registry.apply(spec(version="v3"), actor="ann")
    before = await registry.service("hello")
    assert [file.path for file in (await registry.files.restorable("hello", 1)).files] == ["app.toml"]
    assert await registry.service("hello") == before
    change, lost = await roll_back(registry, 1, "v1")
    file = await current(registry)
    assert (change, lost) == (Change.CONFIGURED, ())
    assert (file.revision, file.managed, file.mode, file.laid, file.actor) == (3, True, 0o644, False, "bob")
    assert (file.generation, await registry.files.content(file.sha256)) == (4, b"one")
    assert (await current(registry, "late")).revision == 1
    said = [event.message for event in await registry.events("hello") if event.actor == "bob"]
    assert said == ["generation 4: back to 1", "app.toml, revision 3, as in generation 1"]
    # The way back from the way back.
    await roll_back(registry, 3, "v3")
    file = await current(registry)
    assert (file.managed, file.mode, await registry.files.content(file.sha256)) == (False, 0o600, b"two")


async def roll_back(registry: Registry, generation: int, version: str) -> tuple[Change, tuple[str, ...]]:
    wanted = spec(version=version) if version else spec()
    note = f"back to {generation}"
    service, change, restored = await registry.roll_back(wanted, generation, actor="bob", note=note)
    assert service == await registry.service("hello")
    return change, restored.notes(generation)


async def test_files_alone_that_come_back_make_a_generation_that_one_can_come_back_from(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one")
    await registry.restart("hello", actor="ann")
    await push(registry, b"two")
    assert await roll_back(registry, 1, "") == (Change.CONFIGURED, ())
    file = await current(registry)
    assert (file.generation, await registry.files.content(file.sha256)) == (3, b"one")
    assert await roll_back(registry, 3, "") == (Change.UNCHANGED, ())
    await roll_back(registry, 2, "")
    assert await registry.files.content((await current(registry)).sha256) == b"two"


async def test_what_is_not_kept_any_more_is_named(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one")
    await registry.apply(spec(version="v2"), actor="ann")
    for number in range(4):
        await push(registry, b"%d" % number)
    _, lost = await roll_back(registry, 1, "v1")
    assert lost == ("app.toml: what was pushed until generation 1 is not kept any more",)
    assert (await current(registry)).revision == 5
    assert (await registry.events("hello"))[-1].kind == "not restored"


async def paths(registry: Registry, *, history: bool = False) -> list[tuple[str, int, bool]]:
    service = await registry.service("hello")
    assert service is not None
    files = await registry.files.history("hello") if history else service.files
    return [(file.path, file.revision, file.removed) for file in files]


async def take_back(registry: Registry, path: str = "app.toml", keep: int = 3, **how: bool) -> ServiceFile:
    return await registry.files.remove("hello", path, actor="bob", keep=keep, **how)


async def test_what_is_taken_back_is_marked_until_it_is_done_with(registry: Registry, changes) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one", managed=True, restart=True)
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    await push(registry, b"never laid", managed=True)
    await changes()
    would = await registry.files.removal("hello", "app.toml", actor="bob")
    assert await changes() == []
    marked = await take_back(registry)
    assert {change.kind for change in await changes()} == {ChangeKind.FILES, ChangeKind.EVENT}
    assert would.model_copy(update={"at": marked.at}) == marked
    # What lies there is what was laid down last, not what was pushed last.
    assert marked.sha256 == hashlib.sha256(b"one").hexdigest()
    assert (marked.revision, marked.removed, marked.managed, marked.restart, marked.laid) == (
        3,
        True,
        True,
        False,
        False,
    )
    assert (await registry.events("hello"))[-1].message == "app.toml, revision 3"
    assert (await take_back(registry)).revision == 3
    await registry.files.gone("hello", "app.toml", 2)
    assert await paths(registry) == [("app.toml", 3, True)]
    await changes()
    await registry.files.gone("hello", "app.toml", 3)
    assert {change.kind for change in await changes()} == {ChangeKind.FILE_LAID}
    assert await paths(registry) == []
    assert await paths(registry, history=True) == [
        ("app.toml", 1, False),
        ("app.toml", 2, False),
        ("app.toml", 3, True),
    ]
    with pytest.raises(NotFound, match=r"nothing of hello is kept at app\.toml"):
        await take_back(registry)
    assert (await push(registry, b"anew")).revision == 4


async def test_only_what_was_laid_down_may_go_and_what_is_not_managed_only_by_wish(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one", "never", managed=True)
    assert not (await take_back(registry, "never", delete=True)).managed
    await push(registry, b"one", "once")
    await registry.files.laid("hello", "once", 1, changed=True)
    assert not (await take_back(registry, "once")).managed
    assert (await take_back(registry, "once", delete=True)).managed
    assert (await take_back(registry, "once")).managed
    await registry.files.gone("hello", "once", 3)
    # What somebody puts there from now on is his.
    await push(registry, b"two", "once", managed=True)
    assert not (await take_back(registry, "once")).managed


async def test_nothing_is_kept_of_what_shall_be_forgotten(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    for path in ("a", "b", "c"):
        await push(registry, path.encode(), path)
        await push(registry, b"more" + path.encode(), path)
    marked = await take_back(registry, "a", forget=True)
    assert await contents(registry) == 4
    await registry.files.gone("hello", "a", marked.revision)
    await take_back(registry, "b")
    await take_back(registry, "b", forget=True)
    await registry.files.gone("hello", "b", 3)
    marked = await take_back(registry, "c")
    await registry.files.gone("hello", "c", marked.revision)
    assert {path for path, *_ in await paths(registry, history=True)} == {"c"}
    assert await contents(registry) == 2
    assert (await take_back(registry, "c", forget=True)).laid
    assert (await paths(registry, history=True), await contents(registry)) == ([], 0)
    with pytest.raises(NotFound):
        await take_back(registry, "c", forget=True)


async def test_a_push_and_a_deletion_overtake_what_is_taken_back(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one")
    await take_back(registry)
    again = await push(registry, b"one")
    assert (again.revision, again.removed) == (3, False)
    await registry.files.gone("hello", "app.toml", 2)
    assert await paths(registry) == [("app.toml", 3, False)]
    await registry.request_deletion("hello", actor="ann")
    with pytest.raises(Refused, match="being deleted"):
        await take_back(registry)


async def test_a_rollback_brings_back_what_was_taken_back_and_takes_it_back_again(registry: Registry) -> None:
    await registry.apply(spec(version="v1"), actor="ann")
    await push(registry, b"one", managed=True)
    await registry.files.laid("hello", "app.toml", 1, changed=True)
    await registry.apply(spec(version="v2"), actor="ann")
    await take_back(registry)
    await registry.files.gone("hello", "app.toml", 2)
    assert await roll_back(registry, 1, "v1") == (Change.CONFIGURED, ())
    file = await current(registry)
    assert (file.revision, file.managed, await registry.files.content(file.sha256)) == (3, True, b"one")
    await registry.files.laid("hello", "app.toml", 3, changed=True)
    await roll_back(registry, 2, "v2")
    file = await current(registry)
    assert (file.revision, file.removed, file.managed) == (4, True, True)
    await registry.files.gone("hello", "app.toml", 4)
    assert (await registry.files.restorable("hello", 2)).files == ()


async def test_of_what_was_taken_back_the_oldest_is_forgotten(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.registry.files.REMOVED_KEPT", 2)
    await registry.apply(spec(), actor="ann")
    await push(registry, b"stays", "stays")
    for path in ("a", "b", "c"):
        await push(registry, path.encode(), path)
        await registry.files.gone("hello", path, (await take_back(registry, path)).revision)
    assert sorted({path for path, *_ in await paths(registry, history=True)}) == ["b", "c", "stays"]


async def test_more_files_than_anybody_needs_are_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.registry.file_rows.MOST_FILES", 2)
    await registry.apply(spec(), actor="ann")
    await push(registry, b"", "a")
    await push(registry, b"", "b")
    with pytest.raises(Refused, match="has 2 files"):
        await push(registry, b"", "c")
    await push(registry, b"other", "b")
