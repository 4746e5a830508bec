"""Which changes go without a reload, and what HAProxy is told for them."""

from dataclasses import replace

import pytest

from mcproxy.model import Entry, RouteKey, State, Upstream
from mcproxy.render import SPARES, render
from mcproxy.spares import Command, Spares, additions
from tests.unit.mcproxy.states import LISTENERS, MAIN, PROXIED, RUNTIME, everything, l4, l7


def _spares(state: State | None = None) -> Spares:
    return Spares(render(state or State(), LISTENERS, RUNTIME, 1))


def test_only_new_routes_are_additions() -> None:
    state = everything()
    entry = l4("new.test")
    assert additions(state, state.with_entry(MAIN, entry)) == {RouteKey(MAIN, "new.test"): entry}
    assert additions(state, state) == {}
    for other in (
        state.without_entry(RouteKey(MAIN, "raw.test")),
        state.with_entry(MAIN, l4(backend="127.0.0.1:9999")),
        state.with_firewall(()),
        state.with_limit(MAIN, 7),
        state.with_entry(MAIN, entry).with_limit(MAIN, 7),
    ):
        assert additions(state, other) is None


def test_an_l7_route_is_told_certificate_first_and_name_last() -> None:
    spares = _spares()
    commands = spares.take({RouteKey(MAIN, "web.test"): l7()})
    assert commands is not None
    starts = [command.text.split(" /")[0].partition(" l7:")[0] for command in commands]
    assert starts == [
        "new ssl cert",
        "set ssl cert",
        "commit ssl cert",
        "add ssl crt-list",
        "set server",
        "set server",
        "add map",
    ]
    backend = commands[-1].text.split()[-1]
    assert commands[-1].text.split()[-2] == "web.test"
    assert spares.route_key(backend) == RouteKey(MAIN, "web.test")


def test_a_certificate_that_is_loaded_is_not_loaded_again() -> None:
    spares = _spares(State().with_entry(PROXIED, l7("a.test")))
    commands = spares.take({RouteKey(MAIN, "web.test"): l7()})
    assert commands is not None
    assert not any(command.text.startswith("new ssl cert") for command in commands)


def test_an_l4_route_has_no_certificate() -> None:
    commands = _spares().take({RouteKey(MAIN, "raw.test"): l4(backend="[::1]:9000")})
    assert commands is not None
    assert [command.text.partition("/")[2] for command in commands[:2]] == [
        "backend addr ::1 port 9000",
        "backend state ready",
    ]


@pytest.mark.parametrize(
    "entry",
    [
        l7(backend_tls=True),
        l7(send_proxy_protocol=True),
        l4(send_proxy_protocol=True),
        l7(l7_policies=({"type": "require_header", "value": "X"},)),
        replace(l7(), bundle=None),
        replace(l7(), upstream=Upstream(None)),
    ],
)
def test_what_a_spare_backend_cannot_do_takes_a_reload(entry: Entry) -> None:
    assert _spares().take({RouteKey(MAIN, entry.route.hostname): entry}) is None


def test_spares_are_used_up_by_kind_and_listener() -> None:
    spares = _spares()
    for number in range(SPARES):
        assert spares.take({RouteKey(MAIN, f"n{number}.test"): l7(f"n{number}.test")})
    assert spares.take({RouteKey(MAIN, "more.test"): l7("more.test")}) is None
    assert spares.take({RouteKey(MAIN, "more.test"): l7("more.test", h2c=True)})
    assert spares.take({RouteKey(PROXIED, "more.test"): l7("more.test")})


@pytest.mark.parametrize(
    ("good", "answer", "is_good"),
    [
        ("", "\n\n", True),
        ("", "No such backend.\n", False),
        ("Success!", "Committing x\nSuccess!\n", True),
        ("Success!", "", False),
    ],
)
def test_answers_are_judged(good: str, answer: str, is_good: bool) -> None:
    assert Command("x", good).is_good(answer) is is_good
