"""A host's folders: sockets stay within their limit wherever the clone lies."""

from pathlib import Path

import pytest

from stack.layout import Layout


def test_a_short_root_keeps_its_sockets_inside() -> None:
    assert Layout(Path("/srv/clone/.local/host")).run == Path("/srv/clone/.local/host/run")


def test_a_long_root_has_its_sockets_elsewhere_and_a_link_to_them(tmp_path: Path) -> None:
    root = tmp_path / ("deep" * 20)
    layout = Layout(root)
    layout.make()
    layout.make()
    assert len(str(layout.run)) < 40
    assert (root / "run").readlink() == layout.run
    assert layout.run.stat().st_mode & 0o777 == 0o700
    layout.remove_run()
    assert not layout.run.exists()
    assert not (root / "run").is_symlink()


def test_a_run_folder_of_an_earlier_boot_is_emptied(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ("deep" * 20))
    layout.make()
    (layout.run / "stale").touch()
    layout.make()
    assert (layout.run / "stale").exists()
    (layout.run / "boot-id").write_text("another boot")
    layout.make()
    assert not (layout.run / "stale").exists()
    layout.remove_run()


def test_a_run_folder_of_another_account_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ("deep" * 20))
    layout.run.symlink_to(tmp_path)
    try:
        with pytest.raises(PermissionError, match="belongs to another account"):
            layout.make()
    finally:
        layout.run.unlink()


def test_two_roots_have_two_tags(tmp_path: Path) -> None:
    assert Layout(tmp_path / "a").tag != Layout(tmp_path / "b").tag
