"""State to text, compared with files that a person has read: UPDATE_GOLDEN=1 writes them anew."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcproxy.model import L7Policy, Mode, PolicyType, RouteKey, State
from mcproxy.render import Rendered, backend_name, render, route_key
from tests.unit.mcproxy.states import LISTENERS, MAIN, RUNTIME, everything, l4, l7

_GOLDEN = Path(__file__).with_name("golden")


def _text(rendered: Rendered) -> str:
    """All of it, but of the spare backends one of each kind."""
    files = [f"==> {name} <==\n{content.decode()}\n" for name, content in rendered.files.items()]
    blocks = rendered.config.split("\n\n")
    shown = [block for block in blocks if not re.match(r"backend \S+:\.\w+\.[1-9]", block)]
    return "\n\n".join(shown) + "\n" + "".join(files)


@pytest.mark.parametrize(("name", "state"), [("empty", State()), ("everything", everything())])
def test_the_configuration_is_as_reviewed(name: str, state: State) -> None:
    golden = _GOLDEN / f"{name}.cfg"
    text = _text(render(state, LISTENERS, RUNTIME, 7))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_the_order_of_insertion_does_not_show() -> None:
    """Else the same state could be rendered into two configurations."""
    state = everything()
    turned = replace(state, entries=dict(reversed(state.entries.items())))
    assert render(turned, LISTENERS, RUNTIME, 7) == render(state, LISTENERS, RUNTIME, 7)


def test_files_are_named_by_their_content() -> None:
    """A changed map is another file, so that a running configuration's files never change."""
    before = render(State().with_entry(MAIN, l4()), LISTENERS, RUNTIME, 1)
    after = render(State().with_entry(MAIN, l4("other.test")), LISTENERS, RUNTIME, 2)
    assert {name: after.files[name] for name in before.files.keys() & after.files.keys()} == {
        name: before.files[name] for name in before.files.keys() & after.files.keys()
    }
    assert before.files.keys() != after.files.keys()


def test_a_shared_certificate_is_one_file() -> None:
    state = State().with_entry(MAIN, l7("a.test")).with_entry(MAIN, l7("b.test"))
    assert sum(name.endswith(".pem") for name in render(state, LISTENERS, RUNTIME, 1).files) == 1


@pytest.mark.parametrize("mode", list(Mode))
def test_a_backend_gives_its_route_back(mode: Mode) -> None:
    key = RouteKey(":8443", "a-b.c_d.test")
    assert route_key(backend_name(key, mode)) == key


@pytest.mark.parametrize("backend", ["refuse", "tls:8443", "listener:8443", "<NOSRV>", "", "l7", "l7:8443"])
def test_other_backends_are_no_routes(backend: str) -> None:
    assert route_key(backend) is None


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=512))
def test_no_policy_breaks_out_of_its_line(value: str) -> None:
    """Whatever its value: it stays one line, short enough, of one quoted word."""
    policy = L7Policy(type=PolicyType.BLOCK_USER_AGENT, value=value)
    config = render(State().with_entry(MAIN, l7(l7_policies=(policy,))), LISTENERS, RUNTIME, 1).config
    line = next(line for line in config.splitlines() if "deny" in line)
    quoted = line.partition(" -m sub -- ")[2].removesuffix(" }")
    assert len(line) < 2048
    # Single quotes keep everything; an apostrophe is said outside of them.
    assert quoted.startswith("'")
    assert quoted.endswith("'")
    assert quoted[1:-1].replace("'\\''", "'") == value
