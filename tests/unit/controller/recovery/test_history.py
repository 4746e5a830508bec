"""It is told when the last snapshot was taken, that one failed, and when there should be a newer one."""

import os
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from api.errors import Refused
from controller.metrics import Metrics
from controller.recovery import history
from controller.recovery.snapshot import take
from controller.registry import utc_now
from controller.settings import Settings
from tests.unit.controller.recovery.conftest import filled

HOUR = timedelta(hours=1)


async def test_of_a_new_agent_none_is_expected_yet_and_of_an_older_one_it_is(lite_settings: Settings) -> None:
    await filled(lite_settings, "hello")
    born = datetime.fromtimestamp((Path(lite_settings.state_dir) / "ca" / "ca.pem").stat().st_mtime).astimezone()
    assert history.look(lite_settings, born + HOUR).problem == ""
    assert history.look(lite_settings, born + 14 * HOUR).problem == "there is none, and one is expected every 13 h"


async def test_the_last_good_one_is_told_and_that_it_is_too_old(lite_settings: Settings) -> None:
    await filled(lite_settings, "hello")
    take(lite_settings)
    taken = take(lite_settings)
    now = taken.manifest.taken_at
    found = history.look(lite_settings, now + 13 * HOUR)
    assert (found.taken_at, found.failed_at, found.problem) == (now, None, "")
    late = history.look(lite_settings, now + 13 * HOUR + timedelta(seconds=1)).problem
    assert late == f"the last one is of {now:%Y-%m-%d %H:%M} UTC, and one is expected every 13 h"


async def test_a_file_of_a_time_that_there_is_not_is_none_of_them(lite_settings: Settings) -> None:
    await filled(lite_settings, "hello")
    now = take(lite_settings).manifest.taken_at
    (history.folder(lite_settings) / f"mcp-{lite_settings.node}-20261399T999999.000000Z.tar.gz").touch()
    assert history.look(lite_settings, now).taken_at == now


async def test_one_that_failed_is_told_until_a_good_one_comes(lite_settings: Settings) -> None:
    await filled(lite_settings, "hello")
    folder = history.folder(lite_settings)
    folder.write_text("in the way")
    with pytest.raises(Refused):
        take(lite_settings)
    found = history.look(lite_settings, utc_now())
    assert found.problem == f"{folder} cannot be looked at: Not a directory"
    folder.unlink()
    found = history.look(lite_settings, utc_now())
    assert found.failed_at is not None
    assert "the last try failed, at" in found.problem
    assert "no snapshot can be made" in found.problem
    assert found.problem.endswith("; there is none")
    note = Path(lite_settings.state_dir) / "recovery" / "snapshot-failure"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    os.utime(note, (found.failed_at.timestamp() - 60,) * 2)
    taken = take(lite_settings)
    assert history.look(lite_settings, utc_now()).problem == ""
    assert not [part for part in taken.manifest.parts if "recovery" in part.path]


async def test_both_times_are_metrics(lite_settings: Settings) -> None:
    await filled(lite_settings, "hello")
    metrics = Metrics([])
    metrics.watch_snapshots(lambda: history.look(lite_settings, utc_now()))
    name = "mcp_snapshot_last_{}_timestamp_seconds".format
    assert metrics.registry.get_sample_value(name("success")) == 0
    taken = take(lite_settings).manifest.taken_at
    history.failed(lite_settings, "because")
    assert metrics.registry.get_sample_value(name("success")) == taken.timestamp()
    assert (metrics.registry.get_sample_value(name("failure")) or 0) >= int(taken.timestamp())
