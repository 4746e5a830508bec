"""Whatever lies in a service's folder, or is put there meanwhile, nothing outside of it is read or written."""

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.files import relative_path
from reconcilers.files import beneath
from reconcilers.files.model import NOTHING, Place, Site, Unsafe

OWN = (os.geteuid(), os.getegid())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where services have their folders; beside it lies what is nobody's business."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    folder = tmp_path / "srv"
    (folder / "hello").mkdir(parents=True)
    return folder


def place(root: Path, path: str) -> Place:
    return Place(str(root), "hello", path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lay(root: Path, path: str, content: bytes = b"new") -> None:
    beneath.lay_down(place(root, path), content, 0o640, OWN)


def test_a_file_is_laid_down_with_all_that_leads_to_it(tmp_path: Path) -> None:
    root = tmp_path / "a" / "srv"
    lay(root, "etc/app/app.toml")
    file = root / "hello/etc/app/app.toml"
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o640)
    assert names(file.parent) == ["app.toml"]
    found = beneath.look(place(root, "etc/app/app.toml"), 100)
    assert (found.sha256, found.mode) == (hashlib.sha256(b"new").hexdigest(), 0o640)
    assert found.owner == f"{OWN[0]}:{OWN[1]}"
    assert beneath.look(place(root, "etc/other/app.toml"), 100) == NOTHING


def test_what_is_too_large_to_be_meant_is_not_read(root: Path) -> None:
    lay(root, "a", b"12345")
    assert beneath.look(place(root, "a"), 4).sha256 == "5 bytes"


def test_an_owner_is_given_and_one_that_may_not_be_is_an_error(root: Path) -> None:
    if OWN[0] != 0:
        with pytest.raises(PermissionError):
            beneath.lay_down(place(root, "a"), b"", 0o600, (0, 0))
        assert names(root / "hello") == []
        return
    beneath.lay_down(place(root, "a"), b"", 0o600, (12, 34))
    assert ((root / "hello/a").stat().st_uid, (root / "hello/a").stat().st_gid) == (12, 34)


def a_link(path: Path) -> None:
    path.symlink_to("../../secret/key")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def a_link_of_the_kernel(path: Path) -> None:
    path.symlink_to("/proc/self/root/etc/hostname")


def a_hard_link(path: Path) -> None:
    path.hardlink_to(path.parent.parent.parent / "secret/key")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def a_folder(path: Path) -> None:
    path.mkdir()


KINDS = {
    a_link: "a symbolic link",
    a_link_to_nothing: "a symbolic link",
    a_link_of_the_kernel: "a symbolic link",
    a_hard_link: "a hard link",
    a_pipe: "a named pipe",
    a_socket: "a socket",
    a_folder: "a folder",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_its_own_is_left_alone(root: Path, kind: Callable[[Path], None]) -> None:
    target = root / "hello" / "f"
    kind(target)
    before = target.lstat()
    with pytest.raises(Unsafe, match=KINDS[kind]):
        lay(root, "f")
    with pytest.raises(Unsafe, match=KINDS[kind]):
        beneath.look(place(root, "f"), 100)
    with pytest.raises(Unsafe, match=KINDS[kind]):
        beneath.open_file(place(root, "f"))
    with pytest.raises(Unsafe, match=KINDS[kind]):
        beneath.remove(place(root, "f"), hashlib.sha256(b"key").hexdigest())
    assert target.lstat() == before
    assert (root.parent / "secret/key").read_text() == "key"
    assert names(root / "hello") == ["f"]


@pytest.mark.parametrize("to", ["../../secret", "/proc/self/root/tmp", "inside"])
def test_no_folder_is_entered_through_a_link(root: Path, to: str) -> None:
    (root / "hello" / "inside").mkdir()
    (root / "hello" / "d").symlink_to(to)
    for attempt in (lambda: lay(root, "d/key"), lambda: beneath.look(place(root, "d/key"), 9)):
        with pytest.raises(Unsafe, match=r"/hello/d is (a symbolic link|no folder)"):
            attempt()
    assert (root.parent / "secret/key").read_text() == "key"


def test_the_folder_of_the_service_itself_is_no_link(root: Path) -> None:
    (root / "hello").rmdir()
    (root / "hello").symlink_to(root.parent / "secret")
    with pytest.raises(Unsafe, match="/hello is"):
        lay(root, "key")
    assert (root.parent / "secret/key").read_text() == "key"


def test_a_file_in_the_place_of_a_folder_is_said(root: Path) -> None:
    (root / "hello/d").write_text("")
    with pytest.raises(Unsafe, match="/hello/d is no folder"):
        lay(root, "d/key")


def test_what_is_the_agents_own_is_neither_written_nor_read(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    site = Site(str(root.parent / "link"), (str(root / "hello/certs"), "", str(root / "mcp")))
    for service, path in (("hello", "certs/a.key"), ("hello", "certs"), ("mcp", "registry.db")):
        with pytest.raises(Unsafe, match="belongs to the agent itself"):
            site.place(service, path)
    assert str(site.place("hello", "certs2/a")) == f"{root.parent}/link/hello/certs2/a"


def test_only_what_is_as_it_was_is_removed(root: Path) -> None:
    lay(root, "a")
    with pytest.raises(Unsafe, match="changed meanwhile"):
        beneath.remove(place(root, "a"), "0" * 64)
    beneath.remove(place(root, "a"), hashlib.sha256(b"new").hexdigest())
    beneath.remove(place(root, "a"), hashlib.sha256(b"new").hexdigest())
    beneath.remove(place(root, "b/c"), "0" * 64)
    assert names(root / "hello") == []


SWITCHED = ["link", "folder", "elsewhere"]


@contextmanager
def switching(folder: Path, outside: Path) -> Iterator[threading.Event]:
    """Somebody makes a folder of links and links of a folder, as fast as that goes."""
    stop, began = threading.Event(), threading.Event()
    real, link = folder.with_name("real"), folder.with_name("link")

    def run() -> None:
        while not stop.is_set():
            with suppress(OSError):
                link.symlink_to(outside)
            with suppress(OSError):
                folder.rename(real)
                link.rename(folder)
            began.set()
            with suppress(OSError):
                folder.unlink()
                real.rename(folder)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert began.wait(5)
        yield stop
    finally:
        stop.set()
        thread.join()


def test_a_folder_that_is_swapped_for_a_link_again_and_again_leads_nowhere(root: Path) -> None:
    folder, outside = root / "hello/d", root.parent / "secret"
    folder.mkdir()
    results = {"laid": 0, "refused": 0}
    with switching(folder, outside):
        for _ in range(150):
            try:
                lay(root, "d/key")
                results["laid"] += 1
            except (Unsafe, FileNotFoundError):
                results["refused"] += 1
            with suppress(Unsafe, OSError):
                descriptor = beneath.open_file(place(root, "d/key"))
                with os.fdopen(descriptor, "rb") as file:
                    assert file.read() == b"new"
    assert names(outside) == ["key"]
    assert (outside / "key").read_text() == "key"
    assert results["refused"]


def test_a_file_that_is_swapped_for_a_link_again_and_again_is_never_written_through(root: Path) -> None:
    file, outside = root / "hello/f", root.parent / "secret/key"
    file.write_text("old")
    with switching(file, outside):
        for _ in range(150):
            with suppress(Unsafe, OSError):
                lay(root, "f")
            with suppress(Unsafe, OSError), os.fdopen(beneath.open_file(place(root, "f")), "rb") as found:
                assert found.read() in (b"new", b"old")
    assert outside.read_text() == "key"
    assert outside.stat().st_nlink == 1


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_dying_at_any_step_leaves_the_old_or_the_new_file_and_the_next_attempt_works(root: Path, call: str) -> None:
    lay(root, "f", b"old")
    program = (
        "import os, signal\n"
        "from reconcilers.files import beneath\nfrom reconcilers.files.model import Place\n"
        f"os.{call} = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"beneath.lay_down(Place({str(root)!r}, 'hello', 'f'), b'new', 0o600, {OWN})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (root / "hello/f").read_bytes() == b"old"
    (left,) = set(names(root / "hello")) - {"f"}
    with pytest.raises(ValueError, match="being written"):
        relative_path(left)
    lay(root, "f")
    assert ((root / "hello/f").read_bytes(), names(root / "hello")) == (b"new", ["f"])


def test_a_disk_that_is_full_leaves_what_was_there(root: Path) -> None:
    lay(root, "f", b"old")
    program = (
        "import resource, signal\n"
        "from reconcilers.files import beneath\nfrom reconcilers.files.model import Place\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        f"beneath.lay_down(Place({str(root)!r}, 'hello', 'f'), bytes(1000), 0o600, {OWN})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "File too large" in ended.stderr
    assert ((root / "hello/f").read_bytes(), names(root / "hello")) == (b"old", ["f"])


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1)
PARTS = st.one_of(NAMES, st.sampled_from(["", ".", "..", "a", "\0", "\n", "a" * 300, ".mcp-0123456789abcdef.new"]))


@given(st.lists(PARTS, max_size=6).map("/".join))
def test_a_path_is_refused_or_leads_below_its_folder(path: str) -> None:
    try:
        relative_path(path)
    except ValueError:
        return
    folder = "/srv/hello"
    assert os.path.normpath(f"{folder}/{path}") == f"{folder}/{path}"
    assert Path(folder, path).is_relative_to(folder)
    assert Path(folder, path) != Path(folder)


@given(st.text(max_size=40))
def test_a_path_that_is_taken_can_be_written(path: str) -> None:
    with suppress(ValueError):
        assert relative_path(path).encode()
        assert os.fsencode(path)
        assert "\0" not in path


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a\nb", "a\0", "\ud800"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|holds) "):
        relative_path(path)
