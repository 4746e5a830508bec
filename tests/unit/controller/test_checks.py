"""Every check finds its fault, says what to do about it, and is content where there is none."""

import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.inspection import Finding, FindingState
from api.service import ContainerState, Service, SnapshotStatus
from controller import checks
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.containers import model
from reconcilers.containers.model import ContainerObservation, Observation
from tests.unit.cli.plane import observed
from tests.unit.controller.registry.samples import spec

NOW = datetime(2026, 11, 25, 9, 36, tzinfo=UTC)
ME = pwd.getpwuid(os.getuid())


def is_ok(finding: Finding) -> bool:
    assert bool(finding.advice) == (finding.state is not FindingState.OK)
    return finding.state is FindingState.OK


def warns(finding: Finding, words: str) -> bool:
    assert words in f"{finding.found} -> {finding.advice}"
    assert finding.advice
    return finding.state is FindingState.WARNING


def fails(finding: Finding, words: str) -> bool:
    assert words in f"{finding.found} -> {finding.advice}"
    assert finding.advice
    return finding.state is FindingState.PROBLEM


def info(
    version: str = "4.3.1", cgroups: str = "v2", rootless: bool = False, controllers: str = "cpu memory pids"
) -> Any:
    return {
        "version": {"Version": version},
        "store": {"graphRoot": "/var/lib/containers/storage"},
        "host": {
            "cgroupVersion": cgroups,
            "cgroupControllers": controllers.split() or None,
            "ociRuntime": {"name": "crun", "path": "/usr/bin/crun"},
            "security": {"rootless": rootless},
        },
    }


def test_an_old_podman() -> None:
    assert is_ok(checks.podman(info(), "/p.sock"))
    assert is_ok(checks.podman(info("5.2.0-rc1"), "/p.sock"))
    assert fails(checks.podman(info("3.4.2"), "/p.sock"), "podman 4.0 or later")


def test_a_missing_runtime() -> None:
    assert is_ok(checks.runtime(info(), lambda _: True))
    assert fails(checks.runtime(info(), lambda _: False), "there is no /usr/bin/crun")


def test_control_groups_that_are_not_delegated() -> None:
    assert is_ok(checks.cgroups(info()))
    assert is_ok(checks.cgroups(info(cgroups="v1")))
    assert warns(checks.cgroups(info(rootless=True, controllers="memory pids")), "Delegate=cpu")
    assert warns(checks.cgroups(info(rootless=True, cgroups="v1", controllers="")), "neither limits nor figures")


def test_too_few_subordinate_ids(tmp_path: Path) -> None:
    uids, gids = tmp_path / "subuid", tmp_path / "subgid"
    uids.write_text(f"other:1:99999\n{ME.pw_name}:100000:65536\n")
    gids.write_text(f"{ME.pw_uid}:100000:1000\n")
    finding = checks.subordinate_ids(ME, (uids, gids))
    assert fails(finding, f"--add-subgids 100000-165535 {ME.pw_name}")
    assert str(uids) not in finding.found
    gids.write_text(f"{ME.pw_uid}:100000:1000\n{ME.pw_name}:200000:65000\n")
    assert is_ok(checks.subordinate_ids(ME, (uids, gids)))
    uids.unlink()
    assert fails(checks.subordinate_ids(ME, (uids, gids)), "too few in")


def test_services_that_end_with_the_session(tmp_path: Path) -> None:
    assert is_ok(checks.lingering(ME, tmp_path / "none", tmp_path))
    assert fails(checks.lingering(ME, tmp_path, tmp_path / "linger"), f"loginctl enable-linger {ME.pw_name}")
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / ME.pw_name).touch()
    assert is_ok(checks.lingering(ME, tmp_path, tmp_path / "linger"))


def test_a_runtime_folder_that_outlives_a_reboot() -> None:
    fallback = f"/tmp/podman-run-{ME.pw_uid}/containers"  # as podman 4.3 does
    assert warns(checks.runtime_folder(ME, fallback), "set XDG_RUNTIME_DIR")
    assert is_ok(checks.runtime_folder(ME, f"/run/user/{ME.pw_uid}/containers"))


def test_a_network_device_that_is_not_for_everyone(tmp_path: Path) -> None:
    device = tmp_path / "tun"
    assert warns(checks.tunnel(device), "modprobe tun")
    device.touch(0o600)
    assert warns(checks.tunnel(device), f"chmod 666 {device}")
    device.chmod(0o666)
    assert is_ok(checks.tunnel(device))


def test_a_ca_that_ends(tmp_path: Path) -> None:
    ca = EmbeddedCa.open(tmp_path, "rift", lambda: NOW)
    end, path = ca.certificate.not_valid_after_utc, tmp_path / "ca.pem"
    assert is_ok(checks.authority(path, NOW))
    assert warns(checks.authority(path, end - timedelta(days=3)), "for a new CA")
    assert fails(checks.authority(path, end), "expired on")
    path.write_text("garbage")
    assert fails(checks.authority(path, NOW), "cannot be read")
    path.unlink()
    assert fails(checks.authority(path, NOW), "restore the folder")


def service(**update: object) -> Service:
    now = datetime.now(UTC)
    fresh = Service(
        uid="u", name="hello", node="rift", generation=1, spec=spec("hello"), created_at=now, updated_at=now
    )
    return observed(fresh).model_copy(update=update)


def test_certificates_that_ended_or_are_not_renewed() -> None:
    one = service()
    (certificate,) = one.certificates
    assert is_ok(checks.certificates([one], datetime.now(UTC)))
    assert fails(checks.certificates([one], certificate.not_after), f"expired: {certificate.hostname}")
    failing = service(certificates=(certificate.model_copy(update={"error": "no"}),))
    assert warns(checks.certificates([failing], datetime.now(UTC)), "mcp certs")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert is_ok(checks.writable("certificate folder", tmp_path))
    assert fails(checks.writable("certificate folder", tmp_path / "none"), "mkdir -p")
    assert fails(checks.writable("certificate folder", Path("/proc/sys")), "cannot be written")


def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    hardware = tmp_path / "since_epoch"
    assert is_ok(checks.clock(NOW, NOW, hardware))
    hardware.write_text(f"{NOW.timestamp():.0f}\n")
    assert is_ok(checks.clock(NOW, NOW + timedelta(seconds=30), hardware))
    assert fails(checks.clock(NOW, NOW + timedelta(hours=1), hardware), "the registry knows of")
    assert warns(checks.clock(NOW + timedelta(minutes=5), None, hardware), "300 s away")
    assert is_ok(checks.synchronised("yes"))
    assert is_ok(checks.synchronised(""))
    assert warns(checks.synchronised("no"), "set-ntp true")


def space(blocks: int, free: int, files: int = 1000, ffree: int = 500) -> os.statvfs_result:
    return os.statvfs_result((1 << 20, 1 << 20, blocks, free, free, files, ffree, ffree, 0, 255))


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (space(100_000, 50_000), FindingState.OK),
        (space(100_000, 50_000, files=0, ffree=0), FindingState.OK),
        (space(10_000, 1_500), FindingState.WARNING),
        (space(100_000, 4_000), FindingState.WARNING),
        (space(100_000, 50_000, ffree=40), FindingState.WARNING),
        (space(10_000, 200), FindingState.PROBLEM),
        (space(100_000, 50_000, ffree=5), FindingState.PROBLEM),
    ],
)
def test_room_and_inodes(found: os.statvfs_result, state: FindingState) -> None:
    assert checks.room("state folder", Path("/x"), found).state is state


def test_a_range_of_ports_that_connections_take(tmp_path: Path) -> None:
    assert is_ok(checks.ports(10000, 60000, 12, range(32768, 61000)))
    assert warns(checks.ports(33000, 60000, 12, range(32768, 61000)), "ip_local_port_range")
    assert warns(checks.ports(10000, 11000, 500, range(32768, 61000)), "501 are left")


def container(name: str, service: str, component: str = "web", node: str = "rift") -> ContainerObservation:
    labels = {
        model.MANAGED_BY: model.MANAGER,
        model.NODE: node,
        model.SERVICE: service,
        model.COMPONENT: component,
    }
    return ContainerObservation(id=name, name=name, image="i", state=ContainerState.RUNNING, labels=labels)


def test_containers_of_ours_that_no_definition_speaks_of() -> None:
    known = service()
    component = known.spec.components[0].name
    ours = container("hello-web", "hello", component)
    foreign = container("theirs", "gone", node="elsewhere")
    picture = Observation({one.id: one for one in (ours, foreign)})
    assert is_ok(checks.leftovers(picture, {"hello": known}, "rift"))
    assert warns(checks.leftovers(picture, {}, "rift"), "in no definition: hello-web")
    assert "theirs" not in checks.leftovers(picture, {}, "rift").found
    extra = Observation({"x": container("hello-old", "hello", "old")})
    assert warns(checks.leftovers(extra, {"hello": known}, "rift"), "hello-old")


def test_an_api_certificate_that_ends_or_could_not_be_renewed() -> None:
    def found(days: float, kept: str = "", *, given: bool = False) -> Finding:
        return checks.api_certificate(NOW + timedelta(days=days), kept, NOW, given=given)

    assert is_ok(found(30))
    assert is_ok(found(30, given=True))
    assert is_ok(found(9))
    assert warns(found(9, given=True), "put a new one in its place")
    assert warns(found(30, "the CA expired", given=False), "see what CA says above")
    assert warns(found(30, "is of another key", given=True), "mend the files of api.cert_file")
    assert fails(found(-1), "nobody who verifies it comes in")


def test_snapshots_that_are_too_old_or_fail() -> None:
    folder = Path("/backup")
    assert is_ok(checks.snapshots(SnapshotStatus(), folder))
    assert is_ok(checks.snapshots(SnapshotStatus(taken_at=NOW), folder))
    assert warns(checks.snapshots(SnapshotStatus(problem="there is none"), folder), "mcp-agent-snapshot.timer")
