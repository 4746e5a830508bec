"""What a node does not let containers have, said in a sentence that names the setting to change."""

import json
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from api.resolve import Defaults, resolve
from reconcilers.containers.engine.request import request_for
from reconcilers.containers.policy import Ground, Policy, Private, Real, mounts, violations
from tests.unit.reconcilers.containers.worlds import NODE, shop, task

GROUND = Ground(
    "/srv",
    (
        Private("/run/podman/podman.sock", "podman's socket"),
        Private("/var/lib/mcp", "what the agent keeps"),
        Private("/srv/mc-proxy/certs", "the key of a certificate", shared=True),
    ),
)
MORE = "unless policy.{} in the agent's settings names it"


def forbidden(policy: Policy | None = None, links: Mapping[str, str] | None = None, **fields: object) -> list[str]:
    """What is forbidden to the service `shop` in a component with these fields; `links` lead elsewhere."""
    service = shop(task(**{"volumes": [], **fields}))
    resolved = resolve(service.spec, Defaults())
    body = json.loads(request_for(service, resolved, resolved.components[0], NODE).body)
    return list(violations(body, service.name, policy or Policy(), GROUND, real(links or {})))


def real(links: Mapping[str, str]) -> Real:
    return lambda path: links.get(path, path)


def on(path: str, policy: Policy | None = None, links: Mapping[str, str] | None = None) -> str:
    """What is wrong with mounting that; empty where nothing is."""
    return "; ".join(forbidden(policy, links, volumes=[f"{path}:/x"])).removeprefix("volumes: ")


def test_a_plain_component_is_fine_with_what_every_container_has() -> None:
    assert forbidden(volumes=None, cap_add=["NET_BIND_SERVICE", "CHOWN"], cap_drop=["ALL"], tmpfs=["/tmp"]) == []


@pytest.mark.parametrize("path", ["/srv", "/srv/shop", "/srv/other/deep", "/srv/"])
def test_what_is_below_the_root_of_the_services_may_be_mounted(path: str) -> None:
    assert on(path, links={"/srv/mc-proxy/certs": "/elsewhere"}) == ""


@pytest.mark.parametrize("path", ["/home/x", "/srvother", "/var/lib/containers", "/etc/ssl"])
def test_other_folders_are_named_in_the_settings_first(path: str) -> None:
    assert on(path) == f"{path} may not be mounted, {MORE.format('mounts')} or a folder above"
    assert on(path, Policy(mounts=(path,))) == ""
    assert on(f"{path}/below", Policy(mounts=(path,))) == ""


def test_a_folder_may_be_for_one_service_alone() -> None:
    assert on("/media/a", Policy(mounts=("shop:/media",))) == ""
    assert "may not be mounted" in on("/media/a", Policy(mounts=("other:/media",)))


def test_where_a_link_leads_counts_and_not_where_it_is() -> None:
    assert on("/srv/shop/link", links={"/srv/shop/link": "/root"}).startswith(
        "/srv/shop/link (which is /root) may not be mounted"
    )
    assert on("/data", links={"/data": "/srv/shop"}) == ""


def test_the_allowed_folder_may_be_a_link_itself() -> None:
    assert on("/srv/shop", links={"/srv": "/big/srv", "/srv/shop": "/big/srv/shop"}) == ""


def test_a_link_that_nobody_may_follow_is_refused() -> None:
    assert on("/srv/shop/x", links={"/srv/shop/x": ""}) == (
        "/srv/shop/x cannot be followed: the agent may not look into a folder on the way"
    )


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "as a whole: it is the host itself"),
        ("/etc", "as a whole: it is the host itself"),
        ("/proc", "/proc is the kernel's own"),
        ("/proc/sys/kernel", "/proc is the kernel's own"),
        ("/sys/fs/cgroup", "/sys is the kernel's own"),
        ("/dev/mem", "/dev is the kernel's own"),
        ("/run/podman/podman.sock", "podman's socket is there"),
        ("/run/podman", "podman's socket is there"),
        ("/run", "podman's socket is there"),
        ("/var/lib", "what the agent keeps is there"),
        ("/var/lib/mcp/ca/ca.key", "what the agent keeps is there"),
        ("/srv", "the key of a certificate is there"),
        ("/srv/mc-proxy/certs", "the key of a certificate is there"),
    ],
)
def test_some_things_are_never_mounted_whatever_the_settings_say(path: str, why: str) -> None:
    everything = Policy(mounts=("/", path), privileged=("shop",))
    assert f"{path} is never mounted" in on(path, everything)
    assert why in on(path, everything)
    assert why in on("/srv/shop/link", everything, links={"/srv/shop/link": path})


def test_what_is_private_is_found_behind_a_link_as_well() -> None:
    links = {"/run/podman/podman.sock": "/srv/podman.sock"}
    assert "podman's socket is there" in on("/srv/podman.sock", links=links)


def test_the_service_that_serves_certificates_has_them_in_its_own_folder() -> None:
    def same(path: str) -> str:
        return path

    assert mounts(("/srv/mc-proxy",), "mc-proxy", Policy(), GROUND, same) == ()
    assert mounts(("/srv/mc-proxy/certs",), "mc-proxy", Policy(), GROUND, same) == ()
    (problem,) = mounts(("/srv/mc-proxy",), "shop", Policy(), GROUND, same)
    assert "the key of a certificate is there" in problem


def test_privileged_is_for_the_services_that_the_settings_name() -> None:
    assert forbidden(privileged=True) == [f"privileged: not for service shop, {MORE.format('privileged')}"]
    assert forbidden(Policy(privileged=("shop",)), privileged=True) == []
    assert len(forbidden(Policy(privileged=("other",)), privileged=True)) == 1


def test_capabilities_beyond_the_usual_are_for_what_the_settings_name() -> None:
    (problem,) = forbidden(cap_add=["NET_ADMIN", "CHOWN"])
    assert problem == f"cap_add: NET_ADMIN may not be added, {MORE.format('capabilities')}"
    assert len(forbidden(cap_add=["ALL"])) == 1
    for allowed in ("NET_ADMIN", "cap_net_admin", "shop:NET_ADMIN", "ALL", "shop:all"):
        assert forbidden(Policy(capabilities=(allowed,)), cap_add=["NET_ADMIN"]) == [], allowed
    assert len(forbidden(Policy(capabilities=("other:NET_ADMIN",)), cap_add=["NET_ADMIN"])) == 1


def test_namespaces_of_the_host_are_for_the_services_that_the_settings_name() -> None:
    fields = {"network": "host", "host_namespaces": ["pid", "ipc", "uts"]}
    asked = ('network "host"', 'host_namespaces "pid"', 'host_namespaces "ipc"', 'host_namespaces "uts"')
    assert forbidden(**fields) == [f"{one}: not for service shop, {MORE.format('host_namespaces')}" for one in asked]
    assert forbidden(Policy(host_namespaces=("shop",)), **fields) == []
    assert forbidden(network="none") == []


def test_all_that_is_forbidden_is_said_at_once() -> None:
    assert len(forbidden(privileged=True, volumes=["/:/host", "/proc:/p"], network="host", cap_add=["SYS_ADMIN"])) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"mounts": ["data"]},
        {"mounts": ["/srv/../etc"]},
        {"mounts": ["web:data"]},
        {"capabilities": ["NET ADMIN"]},
        {"privileged": ["My Service"]},
        {"mounts": 7},
    ],
)
def test_a_wrong_entry_of_the_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(wrong)


def test_a_variable_lists_its_entries_with_commas() -> None:
    assert Policy.model_validate({"mounts": "/data, web:/media", "privileged": ""}) == Policy(
        mounts=("/data", "web:/media"), privileged=()
    )
