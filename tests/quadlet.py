"""Reads quadlet units as podman 4.4's generator and systemd would, for hosts whose podman has no generator yet.

Only what MCP writes is understood, and anything else refused: a key that the generator did not know then would make it
leave the whole unit out.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field

CONTAINER_KEYS = frozenset(
    [
        "ContainerName",
        "Image",
        "Environment",
        "EnvironmentFile",
        "EnvironmentHost",
        "Exec",
        "NoNewPrivileges",
        "DropCapability",
        "AddCapability",
        "ReadOnly",
        "RemapUsers",
        "RemapUid",
        "RemapGid",
        "RemapUidSize",
        "Notify",
        "ExposeHostPort",
        "PublishPort",
        "User",
        "Group",
        "Volume",
        "PodmanArgs",
        "Label",
        "Annotation",
        "RunInit",
        "VolatileTmp",
        "Timezone",
        "SeccompProfile",
        "AddDevice",
        "Network",
    ]
)
NETWORK_KEYS = frozenset(
    ["DisableDNS", "Driver", "Gateway", "Internal", "IPRange", "IPAMDriver", "IPv6", "Options", "Subnet", "Label"]
)

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"'}


@dataclass(frozen=True)
class Unit:
    """Sections, keys, and their values in order."""

    sections: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def all(self, section: str, key: str) -> list[str]:
        return self.sections.get(section, {}).get(key, [])

    def one(self, section: str, key: str) -> str:
        (value,) = self.all(section, key)
        return value


def parse(text: str) -> Unit:
    """A unit file; a line that is none is refused."""
    sections: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in text.split("\n"):
        if not line or line.startswith(("#", ";")):
            continue
        if found := re.fullmatch(r"\[([A-Za-z]+)\]", line):
            section = found[1]
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        assert section, line
        sections[section][key].append(value)
    return Unit({name: dict(keys) for name, keys in sections.items()})


def words(line: str) -> list[str]:
    """What systemd.syntax(7) makes of a line: quoted words, escapes, and `%%` and `$$` for one of each."""
    found = []
    for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line):
        text = plain or re.sub(r"\\(x[0-9a-f]{2}|.)", _character, quoted)
        # systemd would put something else in its place.
        assert not set("%$") & set(text.replace("%%", "").replace("$$", "")), text
        found.append(text.replace("%%", "%").replace("$$", "$"))
    return found


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1][1:], 16)) if escape[1].startswith("x") else _ESCAPES[escape[1]]


def podman_run(unit: Unit, networks: dict[str, str]) -> list[str]:
    """The arguments to podman that the generator makes of a .container; `networks` are those of .network units."""
    assert set(unit.sections["Container"]) <= CONTAINER_KEYS
    get = unit.sections["Container"].get
    arguments = ["run", "--detach", "--name", unit.one("Container", "ContainerName")]
    network = unit.one("Container", "Network")
    arguments += ["--network", networks.get(network, network)]
    group = f":{unit.one('Container', 'Group')}" if get("Group") else ""
    arguments += ["--user", unit.one("Container", "User") + group]
    for key, option in (
        ("DropCapability", "--cap-drop"),
        ("AddCapability", "--cap-add"),
        ("PublishPort", "--publish"),
        ("Volume", "--volume"),
    ):
        arguments += [part for value in get(key) or () for part in (option, value.replace("%%", "%"))]
    for key, option in (("Environment", "--env"), ("Label", "--label")):
        arguments += [part for value in get(key) or () for word in words(value) for part in (option, word)]
    if unit.all("Container", "ReadOnly") == ["true"]:
        arguments.append("--read-only")
    arguments += [word for value in get("PodmanArgs") or () for word in words(value)]
    return [*arguments, unit.one("Container", "Image"), *(word for line in get("Exec") or () for word in words(line))]
