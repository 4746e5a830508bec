"""What a route, a policy and a rule may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mcproxy.model import FirewallRule, L7Policy, Mode, Route, sentence, split_backend


@pytest.mark.parametrize("hostname", ["a", "A.Test", "xn--bcher-kva.test", "_acme.a.test", "1.a", "a" * 63 + ".test"])
def test_good_hostnames_become_lower_case(hostname: str) -> None:
    assert Route(hostname=hostname, backend="a:1").hostname == hostname.lower()


@pytest.mark.parametrize(
    "hostname",
    [
        "",
        ".",
        "a.",
        ".a",
        "a b",
        "a/b",
        "*.a",
        "-a",
        "a-",
        "a" * 64,
        "a." * 127 + "ab",
        "::1",
        "1.2.3.4",
        "bücher.test",
        "\u212a",
    ],
)
def test_bad_hostnames_are_refused(hostname: str) -> None:
    with pytest.raises(ValidationError, match="hostname"):
        Route(hostname=hostname, backend="a:1")


@pytest.mark.parametrize(
    ("backend", "parts"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("localhost:80", ("localhost", 80)),
        ("Host.Test:080", ("Host.Test", 80)),
    ],
)
def test_good_backends_are_split(backend: str, parts: tuple[str, int]) -> None:
    assert split_backend(backend) == parts


@pytest.mark.parametrize(
    "backend",
    [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:-1",
        "a:x",
        "a:٣",
        "::1:80",
        "[a]:80",
        "[1.2.3.4]:80",
        "[::1]80",
        "a b:1",
        "[fe80::1%eth0]:80",
        "a:1 b:2",
        "unix@/x:1",
        "a:" + "1" * 5000,
    ],
)
def test_bad_backends_are_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="backend"):
        split_backend(backend)


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_passes_holds_nothing_that_the_configuration_could_misread(hostname: str, backend: str) -> None:
    try:
        route = Route(hostname=hostname, backend=backend)
    except ValidationError:
        return
    assert not set(route.hostname + route.backend) & set(" \t\r\n'\"\\#%{}()$,/@")


def test_l7_needs_both_files_and_l4_takes_no_policies() -> None:
    with pytest.raises(ValidationError, match="tls_cert and tls_key"):
        Route(hostname="a.test", backend="a:1", mode=Mode.L7, tls_cert="/c")
    policy = L7Policy.model_validate({"type": "require_header", "value": "X"})
    with pytest.raises(ValidationError, match="L7 policies"):
        Route(hostname="a.test", backend="a:1", l7_policies=(policy,))


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("ip", "203.0.113.7", "203.0.113.7"),
        ("ip", "2001:DB8::0:1", "2001:db8::1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/8"),
        ("cidr", "10.0.0.1", "10.0.0.1/32"),
    ],
)
def test_rules_are_kept_in_canonical_form(kind: str, given: str, kept: str) -> None:
    """So that one network written in two ways is one rule."""
    assert FirewallRule.model_validate({"type": kind, "value": given}).value == kept


@pytest.mark.parametrize(
    ("kind", "value"), [("ip", "10.0.0.0/8"), ("cidr", "10.0.0.1/8"), ("ip", ""), ("country", "NZ"), ("cidr", 7)]
)
def test_bad_rules_are_refused(kind: str, value: object) -> None:
    with pytest.raises(ValidationError):
        FirewallRule.model_validate({"type": kind, "value": value})


def test_a_complaint_is_one_sentence_that_names_the_field() -> None:
    with pytest.raises(ValidationError) as refused:
        Route.model_validate({"hostname": "a.test", "backend": "a:1", "backend_tls": "yes"})
    assert sentence(refused.value) == "backend_tls: Input should be a valid boolean"
