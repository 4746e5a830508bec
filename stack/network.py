"""What podman's networks leave in the kernel, found by the addresses that one host alone uses.

Usually podman takes its bridges and rules away itself. When it was killed half-way nobody else does, and the rules of
a network outlive the container they led to.
"""

import ipaddress
import json
import re
import shlex
import subprocess
from collections.abc import Iterator

# The chains that netavark makes for one network are named after a hash of the network's name.
_OWN_CHAIN = re.compile(r"NETAVARK-(DN-)?[0-9A-F]{8,}")


def pool(tag: str) -> ipaddress.IPv4Network:
    """The addresses of the host with this tag: one of 2,048 private /19 nets, 32 networks of 254 addresses each."""
    return ipaddress.IPv4Network(((10 << 24) | (int(tag, 16) % 2048 << 13), 19))


def remove_leftovers(own: ipaddress.IPv4Network) -> None:
    """Deletes the bridges and the iptables rules whose addresses lie in `own`. Needs root."""
    for name in _bridges(own):
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    for table in ("nat", "filter"):
        _remove_rules(table, own)


def leftovers(own: ipaddress.IPv4Network) -> list[str]:
    """The names of bridges and the text of rules whose addresses lie in `own`."""
    rules = [" ".join(rule) for table in ("nat", "filter") for rule in _rules(table) if _mentions(rule, own)]
    return [*_bridges(own), *rules]


def _bridges(own: ipaddress.IPv4Network) -> list[str]:
    shown = subprocess.run(["ip", "-j", "-4", "address"], check=True, capture_output=True).stdout
    return [
        link["ifname"]
        for link in json.loads(shown)
        if any(ipaddress.IPv4Address(address["local"]) in own for address in link.get("addr_info", ()))
    ]


def _remove_rules(table: str, own: ipaddress.IPv4Network) -> None:
    rules = list(_rules(table))
    chains = {rule[1] for rule in rules if _mentions(rule, own) and _OWN_CHAIN.fullmatch(rule[1])}
    chains |= {word for rule in rules if _mentions(rule, own) for word in rule if _OWN_CHAIN.fullmatch(word)}
    for rule in rules:
        if _mentions(rule, own) or not chains.isdisjoint(rule):
            _iptables(table, "-D", *rule[1:])
    for chain in chains:
        _iptables(table, "-X", chain)


def _rules(table: str) -> Iterator[list[str]]:
    saved = subprocess.run(["iptables-save", "-t", table], check=True, capture_output=True, text=True).stdout
    return (shlex.split(line) for line in saved.splitlines() if line.startswith("-A "))


def _iptables(table: str, *words: str) -> None:
    subprocess.run(["iptables", "-w", "-t", table, *words], check=False, capture_output=True)


def _mentions(rule: list[str], own: ipaddress.IPv4Network) -> bool:
    return any(_is_within(word, own) for word in rule)


def _is_within(word: str, own: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Network(word.partition(":")[0], strict=False).subnet_of(own)
    except ValueError:
        return False
