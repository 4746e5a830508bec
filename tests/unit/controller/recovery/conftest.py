"""What a snapshot is taken of: a folder as an agent leaves it."""

from pathlib import Path

import pytest

from controller.registry import Registry
from controller.settings import Settings
from tests.unit.controller.registry.samples import spec


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Those of an agent of node `rift`, on either database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return made(tmp_path / "one", url)


@pytest.fixture
def lite_settings(tmp_path: Path) -> Settings:
    """The same on SQLite, where the kind of database does not matter."""
    return made(tmp_path / "one")


def made(folder: Path, url: str = "", node: str = "rift", **snapshot: object) -> Settings:
    """The settings of an agent whose folder is `folder`, with a CA's files in it."""
    private = folder / "ca" / "private"
    private.mkdir(mode=0o700, parents=True)
    (folder / "ca" / "ca.pem").write_text("certificate")
    (private / "ca.key").write_text("key")
    (private / "ca.key").chmod(0o600)
    document = {"node": node, "state_dir": str(folder), "registry": {"url": url}, "snapshot": snapshot}
    return Settings.model_validate(document)


async def filled(settings: Settings, *names: str, version: str = "v1") -> None:
    """Has an agent of these settings know services of these names, and end."""
    registry = await Registry.open(settings.registry_url, settings.node)
    for name in names:
        await registry.apply(spec(name, version), actor="ann")
    await registry.close()
