"""HAProxy's answers, read."""

import pytest

from mcproxy.runtime import alert, sessions, worker_pids

_STAT = """\
# pxname,svname,qcur,qmax,scur,smax,
listener:443,FRONTEND,,,3,9,
tls:443,FRONTEND,,,2,9,
tls:443,BACKEND,0,0,7,9,

"""
_PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
27820           master          5 [failed: 0]   0d00h00m02s     2.6.12-1+deb12u4
# workers
27840           worker          0               0d00h00m01s     2.6.12-1+deb12u4
# old workers
27834           worker          1               0d00h00m09s     2.6.12-1+deb12u4
# programs

"""


def test_sessions_are_those_of_frontends() -> None:
    assert sessions(_STAT) == {"listener:443": 3, "tls:443": 2}


def test_old_workers_are_workers() -> None:
    assert worker_pids(_PROC) == [27840, 27834]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "[ALERT]    (7) : config : parsing [h.cfg:33] : unknown keyword 'x'",
            "parsing [h.cfg:33] : unknown keyword 'x'",
        ),
        (
            "[ALERT]    (7) : Binding [h.cfg:1] for frontend a: cannot bind",
            "Binding [h.cfg:1] for frontend a: cannot bind",
        ),
        ("[ALERT]    (7) : config : Fatal errors found in configuration.", None),
        ("[ALERT]    (7) : config : Error(s) found in configuration file : h.cfg", None),
        ("[WARNING]  (7) : Loading failure!", None),
        ("[NOTICE]   (7) : Loading success.", None),
        ("anything", None),
    ],
)
def test_reasons_are_alerts_without_their_prefix(line: str, reason: str | None) -> None:
    assert alert(line) == reason
