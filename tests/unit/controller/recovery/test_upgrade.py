"""Migrating without serving."""

from pathlib import Path

import pytest

from api.errors import RegistryUnavailable
from controller.recovery.upgrade import Upgraded, migrate
from controller.registry import Registry
from controller.registry.schema import known_revisions
from controller.settings import Settings


async def test_a_registry_is_made_or_upgraded_and_left(settings: Settings) -> None:
    newest = known_revisions()[-1]
    assert await migrate(settings) == Upgraded(None, newest)
    assert await migrate(settings) == Upgraded(newest, newest)


async def test_nothing_is_migrated_under_a_running_agent(lite_settings: Settings) -> None:
    registry = await Registry.open(lite_settings.registry_url, "rift")
    with pytest.raises(RegistryUnavailable, match="served by another agent"):
        await migrate(lite_settings)
    await registry.close()


async def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryUnavailable, match="cannot be opened"):
        await migrate(Settings.model_validate({"node": "rift", "state_dir": f"{tmp_path}/file/state"}))
