"""The configuration file: its example is good, and what is wrong with another is said in one sentence."""

from pathlib import Path

import pytest

from mcproxy.settings import Settings, SettingsError, load

_EXAMPLE = Path(__file__).parents[3] / "deploy" / "mcproxy.toml"
_GOOD = """\
[admin]
socket = "/run/mc-proxy/admin.sock"
[database]
path = "/srv/mc-proxy/db"
[haproxy]
runtime_dir = "/srv/mc-proxy/haproxy"
[[listeners]]
addr = ":443"
"""


def _load(folder: Path, text: str) -> Settings:
    path = folder / "mcproxy.toml"
    path.write_text(text)
    return load(path)


def test_the_example_is_good_and_names_every_setting() -> None:
    settings = load(_EXAMPLE)
    assert settings.listener_addrs == {":8443", ":443"}
    text = _EXAMPLE.read_text()
    tables = [settings, settings.admin, settings.database, settings.haproxy, settings.listeners[0], settings.routes[0]]
    for table in tables:
        for field in type(table).model_fields:
            assert field in text


def test_defaults(tmp_path: Path) -> None:
    settings = _load(tmp_path, _GOOD)
    assert settings.shutdown_timeout == 30
    assert settings.haproxy.binary == "haproxy"
    assert (settings.routes, settings.firewall) == ((), ())
    listener = settings.listeners[0]
    assert (listener.bind, listener.proxy_protocol, listener.max_connections) == (None, False, 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("[admin]", "shutdown_timout = 1\n[admin]"),
            "unknown key 'shutdown_timout': did you mean 'shutdown_timeout'?",
        ),
        (("socket =", "sockt ="), "unknown key 'sockt' in [admin]: did you mean 'socket'?"),
        (
            ("addr =", "x = 1\naddr ="),
            "unknown key 'x' in [listeners]: known are addr, bind, max_connections, proxy_protocol",
        ),
        (("[database]", "[databse]"), "unknown key 'databse': did you mean 'database'?"),
        ((":443", "443"), "listener address '443' is not"),
        ((":443", ":0"), "listener address ':0' is not"),
        (('addr = ":443"', 'addr = ":443"\nbind = "all"'), "'all' does not appear to be an IPv4 or IPv6 address"),
        (('addr = ":443"', 'addr = ":443"\nmax_connections = -1'), "listeners.0.max_connections: "),
        (('addr = ":443"', 'addr = ":443"\nproxy_protocol = "yes"'), "listeners.0.proxy_protocol: "),
        (('addr = ":443"', 'addr = ":443"\n[[listeners]]\naddr = ":443"'), "two listeners have the same addr"),
        (('[[listeners]]\naddr = ":443"', ""), "listeners: Field required"),
        (("[admin]", "shutdown_timeout = 0\n[admin]"), "shutdown_timeout: "),
        (("/srv/mc-proxy/haproxy", "/srv/mc proxy"), "has characters that HAProxy's configuration gives a meaning to"),
        (("/srv/mc-proxy/haproxy", "/" + "x" * 80), "too long for Unix sockets"),
        (("/run/mc-proxy/admin.sock", "/" + "x" * 107), "too long for Unix sockets"),
        (
            ('addr = ":443"', 'addr = ":443"\n[[routes]]\nlistener=":1"\nhostname="a.test"\nbackend="a:1"'),
            "listener ':1'",
        ),
        (('addr = ":443"', 'addr = ":443"\n[[routes]]\nlistener=":443"\nhostname="a b"\nbackend="a:1"'), "'a b'"),
        (('addr = ":443"', 'addr = ":443"\n[[firewall]]\ntype="country"\nvalue="NZ"'), "'NZ'"),
        (("[admin]", "[admin"), "not TOML"),
        (("[admin]", "a = " + "[" * 5000), "not TOML"),
        (("[admin]", "a = " + "1" * 5000), "not TOML"),
        (("[admin]", "#" * (1 << 20)), "larger than 1 MiB"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _load(tmp_path, _GOOD.replace(*change))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/mcproxy.toml: ")
    assert complaint in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
