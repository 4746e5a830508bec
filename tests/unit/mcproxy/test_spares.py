"""Which changes go without a reload, and what HAProxy is told for them."""

from dataclasses import replace

import pytest

from mcproxy.model import Entry, RouteKey, State, Upstream
from mcproxy.render import SPARES, render
from mcproxy.spares import Command, Spares, changes
from tests.unit.mcproxy.states import LISTENERS, MAIN, PROXIED, RUNTIME, everything, l4, l7


def _spares(state: State | None = None) -> Spares:
    state = state or State()
    return Spares(state, render(state, LISTENERS, RUNTIME, 1))


def test_changes_are_what_is_new_other_or_gone() -> None:
    state = everything()
    entry, moved, raw = l4("new.test"), l4(backend="127.0.0.1:9999"), RouteKey(MAIN, "raw.test")
    assert changes(state, state.with_entry(MAIN, entry)) == {RouteKey(MAIN, "new.test"): entry}
    assert changes(state, state.with_entry(MAIN, moved)) == {raw: moved}
    assert changes(state, state.without_entry(raw)) == {raw: None}
    assert changes(state, state) == {}


def test_a_renewed_certificate_takes_a_reload() -> None:
    """Also that of a name that was taken away and comes back."""
    key = RouteKey(MAIN, "web.test")
    spares = _spares(State().with_entry(MAIN, l7()))
    assert spares.take({key: l7(digest="f" * 64)}) is None
    assert spares.take({key: None})
    assert spares.take({key: l7(digest="f" * 64)}) is None
    assert spares.take({key: l7()})


def test_a_route_that_goes_is_no_longer_found() -> None:
    spares = _spares(State().with_entry(MAIN, l7()))
    commands = spares.take({RouteKey(MAIN, "web.test"): None})
    assert commands is not None
    assert [command.text.partition(" /")[0] for command in commands] == ["del map"]
    assert spares.backends == {}


def test_a_worker_that_finishes_its_connections_is_told_of_l7_routes_it_knows() -> None:
    spares = _spares(State().with_entry(MAIN, l7()).with_entry(MAIN, l4()))
    web, raw, new = (RouteKey(MAIN, name) for name in ("web.test", "raw.test", "new.test"))
    told = list(spares.elsewhere({web: l7(backend="127.0.0.1:9002"), raw: l4(backend="127.0.0.1:9002"), new: l7()}))
    assert [line.rpartition(" ")[2] for line in told] == [
        "web.test",
        "web.test",
        "127.0.0.1@9002",
        "l7:443:.h1.elsewhere",
    ]
    assert len(list(spares.elsewhere({web: None}))) == 1
    assert list(spares.elsewhere({web: l7(backend_tls=True)})) == []


def test_a_route_that_moves_is_led_to_another_backend() -> None:
    spares = _spares(State().with_entry(MAIN, l7()))
    for port in (9002, 9003):
        before = spares.backends[RouteKey(MAIN, "web.test")]
        commands = spares.take({RouteKey(MAIN, "web.test"): l7(backend=f"127.0.0.1:{port}")})
        assert commands is not None
        after = spares.backends[RouteKey(MAIN, "web.test")]
        assert after != before
        assert [command.text.partition(f" {after}")[0].partition(" /")[0] for command in commands] == [
            "set server",
            "set server",
            "set map",
        ]


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
        replace(l7(), upstream=Upstream("192.0.2.1")),
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
