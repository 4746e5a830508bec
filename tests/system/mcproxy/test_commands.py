"""mcproxyd's own command line."""

import asyncio
import sqlite3
from pathlib import Path

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import tls_echo
from tests.system.mcproxy.clients import connect
from tests.system.mcproxy.daemon import PROGRAM, Daemon, mode


async def _run(*arguments: str | Path) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_status_shows_listeners(daemon: Daemon, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
        connection = await connect(daemon.port, "raw.test", authority.client())
        code, output, _ = await _run("status", "-c", daemon.config)
        assert code == 0
        version, uptime, connections, first, second = output.splitlines()
        assert version.startswith("mc-proxy ")
        assert uptime.startswith("uptime: 0:00:")
        assert connections == "connections: 1"
        assert first == f"  {daemon.addr}  routes=1 active=1"
        assert second == f"  :{daemon.ports[1]}  routes=0 active=0"
        connection.close()


async def test_status_of_what_does_not_run_says_so(folder: Path) -> None:
    code, _, errors = await _run("status", "-c", Daemon(folder).config)
    assert code == 1
    assert str(folder) in errors
    assert "Traceback" not in errors


async def test_a_snapshot_is_a_database_to_start_from(daemon: Daemon) -> None:
    await daemon.l4("raw.test", 9)
    code, output, _ = await _run("snapshot", "-c", daemon.config)
    copy = Path(output.strip())
    assert code == 0
    assert copy.parent == daemon.database.parent / "backups"
    assert mode(copy) == 0o600
    assert sqlite3.connect(copy).execute("SELECT hostname FROM route").fetchall() == [("raw.test",)]
    await daemon.remove("raw.test")
    await daemon.end()
    daemon.forget_routes()
    daemon.restore(copy)
    await daemon.start()
    assert [route.hostname for route in await daemon.routes()] == ["raw.test"]
    code, _, errors = await _run("snapshot", "-c", daemon.config, "-o", daemon.database)
    assert (code, "exists already" in errors) == (1, True)


async def test_check_names_what_is_wrong(folder: Path) -> None:
    config = Daemon(folder).config
    assert await _run("check", "-c", config) == (0, f"{config}: good\n", "")
    config.write_text(config.read_text().replace("bind =", "bnid ="))
    code, _, errors = await _run("check", "-c", config)
    assert code == 1
    assert errors == f"Error: {config}: unknown key 'bnid' in [listeners]: did you mean 'bind'?\n"
