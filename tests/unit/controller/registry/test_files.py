"""Files that were pushed: each content once, the last ones of each path, and the way back."""

import hashlib
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from api.conditions import ConditionType, Reason, Status
from api.errors import NotFound, Refused
from api.files import FileTarget, ServiceFile
from api.service import Finalizer
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
    with pytest.raises(NotFound, match="apply it first"):
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
    restored = await registry.files.restore("hello", 1, actor="bob")
    (file,) = restored.files
    assert restored.lost == ()
    assert (file.revision, file.managed, file.mode, file.laid, file.actor) == (3, True, 0o644, False, "bob")
    assert await registry.files.content(file.sha256) == b"one"
    assert file == await current(registry)
    assert not (await registry.files.restore("hello", 2, actor="bob")).files[0].managed
    with pytest.raises(NotFound):
        await registry.files.restore("nobody", 1, actor="bob")


async def test_what_is_not_kept_any_more_is_named(registry: Registry) -> None:
    await registry.apply(spec(), actor="ann")
    await push(registry, b"one")
    await registry.apply(spec(version="v2"), actor="ann")
    for number in range(4):
        await push(registry, b"%d" % number)
    restored = await registry.files.restore("hello", 1, actor="bob")
    assert (restored.files, restored.lost) == ((), ("app.toml",))
    assert (await current(registry)).revision == 5


async def test_more_files_than_anybody_needs_are_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.registry.files.MOST_FILES", 2)
    await registry.apply(spec(), actor="ann")
    await push(registry, b"", "a")
    await push(registry, b"", "b")
    with pytest.raises(Refused, match="has 2 files"):
        await push(registry, b"", "c")
    await push(registry, b"other", "b")
