"""Definitions: deployed, stopped, edited, looked back at, from the services folder."""

import json
from pathlib import Path

import pytest
import yaml

from api.errors import ExitCode
from api.manifest import load
from cli.definitions import set_active
from tests.unit.cli.plane import Mcp

FILE = "services/shop.toml"
SHOP = """\
# The shop.
name = "shop"  # its name

[[components]]
name = "web"  # the front
image = "reg:5000/web:v1"

[[components]]
name = "db"
image = "reg:5000/db:v1"
"""


@pytest.fixture
def shop(mcp: Mcp) -> Path:
    (mcp.folder / "services").mkdir()
    return mcp.folder / mcp.write(FILE, SHOP)


async def test_deploy_applies_the_file_and_one_component_alone(mcp: Mcp, shop: Path) -> None:
    assert (await mcp("deploy", "shop")).lines[0] == "shop created (generation 1)"
    mcp.write(FILE, SHOP.replace(":v1", ":v2"))
    assert (await mcp("deploy", "shop/db")).status == 0
    images = [one.image for one in mcp.plane.registry["shop"].spec.components]
    assert images == ["reg:5000/web:v1", "reg:5000/db:v2"]
    ran = await mcp("deploy", "shop/api")
    assert (ran.status, 'no component "api": it has web, db' in ran.stderr) == (ExitCode.REFUSED, True)


async def test_what_is_not_defined_says_how_to_begin(mcp: Mcp) -> None:
    ran = await mcp("deploy", "nobody")
    assert (ran.status, "mcp service new nobody begins one" in ran.stderr) == (ExitCode.USAGE, True)


async def test_stop_and_start_are_written_into_the_file_and_keep_its_comments(mcp: Mcp, shop: Path) -> None:
    await mcp("deploy", "shop")
    ran = await mcp("stop", "shop/db")
    assert (ran.status, ran.lines[-1]) == (0, f"{shop}: component db: active = false")
    assert not mcp.plane.registry["shop"].spec.runs("db")
    assert mcp.plane.registry["shop"].spec.runs("web")
    assert load((mcp.folder / FILE).read_text(), "x").spec == mcp.plane.registry["shop"].spec
    assert (await mcp("start", "shop/db")).status == 0
    assert (await mcp("stop", "shop")).status == 0
    text = (mcp.folder / FILE).read_text()
    assert load(text, "x").spec == mcp.plane.registry["shop"].spec
    for comment in ("# The shop.", '"shop"  # its name', '"web"  # the front'):
        assert comment in text
    assert (await mcp("stop", "shop")).lines[0] == "shop unchanged"


BOM = "\ufeff"
COMPONENTS = """\
name = "shop"
version = "v1"
# The front.
[[components]]
name = "web"
# Of the front.
image = "reg:5000/web:v1"
"""


@pytest.mark.parametrize(
    ("before", "service", "component"),
    [
        (
            COMPONENTS,
            COMPONENTS.replace('"shop"\n', '"shop"\nactive = false\n'),
            COMPONENTS.replace('"web"\n', '"web"\nactive = false\n'),
        ),
        (
            BOM + COMPONENTS.replace("\n", "\r\n"),
            BOM + COMPONENTS.replace('"shop"\n', '"shop"\nactive = false\n').replace("\n", "\r\n"),
            BOM + COMPONENTS.replace('"web"\n', '"web"\nactive = false\n').replace("\n", "\r\n"),
        ),
        (
            'components = [{name = "web", image = "i:1"}] # one\nname = "shop"',
            'components = [{name = "web", image = "i:1"}] # one\nname = "shop"\nactive = false',
            'components = [{name = "web", image = "i:1", active = false}] # one\nname = "shop"',
        ),
        (
            'name = "shop"\n  active = true # for now\n[[components]]\nactive=true\n"name" = "web"\nimage = "i:1"\n',
            'name = "shop"\n  active = false # for now\n[[components]]\nactive=true\n"name" = "web"\nimage = "i:1"\n',
            'name = "shop"\n  active = true # for now\n[[components]]\nactive=false\n"name" = "web"\nimage = "i:1"\n',
        ),
    ],
)
def test_of_a_definition_one_line_is_changed_and_no_other_byte(
    tmp_path: Path, before: str, service: str, component: str
) -> None:
    path = tmp_path / "shop.toml"
    for of, after in (("", service), ("web", component)):
        path.write_bytes(before.encode())
        path.chmod(0o640)
        assert set_active(path, of, False)
        assert path.read_bytes().decode() == after
        assert not set_active(path, of, False)
        assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o640, [path])


async def test_a_hidden_file_defines_nothing_and_one_of_another_name_what_it_says(mcp: Mcp, shop: Path) -> None:
    mcp.write("services/.#shop.toml", "what an editor leaves")
    mcp.write("services/front.toml", SHOP)
    mcp.write(FILE, SHOP.replace('"shop"', '"blog"'))
    assert (await mcp("sync", "--no-wait")).status == 0
    assert set(mcp.plane.registry) == {"shop", "blog"}
    await mcp("stop", "shop", "--no-wait")
    assert "active = false" in shop.with_name("front.toml").read_text()


@pytest.mark.parametrize("name", ["../shop", "", "Shop", "shop/web/x", "-"])
async def test_what_is_no_name_of_a_service_leads_nowhere(mcp: Mcp, shop: Path, name: str) -> None:
    ran = await mcp("deploy", "--", name)
    assert ran.status == ExitCode.USAGE
    assert f'"{name}" is no name of a service' in ran.stderr


async def test_undeploy_keeps_the_definition_and_start_brings_it_back(mcp: Mcp, shop: Path) -> None:
    await mcp("deploy", "shop")
    assert (await mcp("undeploy", "shop")).status == 0
    assert mcp.plane.registry == {}
    assert not load((mcp.folder / FILE).read_text(), "x").spec.active
    ran = await mcp("deploy", "shop", "--no-wait")
    assert "mcp start shop" in ran.lines[-1]
    await mcp("undeploy", "shop")
    ran = await mcp("start", "shop")
    assert ran.status == 0, ran.stderr
    assert mcp.plane.registry["shop"].spec.active


async def test_a_restart_counts(mcp: Mcp, shop: Path) -> None:
    await mcp("deploy", "shop")
    assert (await mcp("restart", "shop/web")).status == 0
    assert mcp.plane.registry["shop"].restarts == {"web": 1}
    await mcp("stop", "shop")
    ran = await mcp("restart", "shop")
    assert (ran.status, "mcp start shop" in ran.stderr) == (ExitCode.REFUSED, True)


async def test_history_says_who_changed_what_and_rollback_goes_back(mcp: Mcp, shop: Path) -> None:
    await mcp("deploy", "shop")
    mcp.write(FILE, SHOP.replace("web:v1", "web:v2"))
    await mcp("deploy", "shop")
    await mcp("restart", "shop/db")
    lines = (await mcp("service", "history", "shop")).lines
    assert [line.split()[0] for line in lines] == ["GEN", "3", "2", "1"]
    assert lines[1].endswith("restart of db")
    assert 'components[web].image: "reg:5000/web:v1" -> "reg:5000/web:v2"' in lines[2]
    assert lines[3].endswith("first definition")
    planned = await mcp("service", "rollback", "shop", "--dry-run")
    assert planned.lines[0] == "shop would be configured"
    ran = await mcp("service", "rollback", "shop")
    assert (ran.status, ran.lines[0]) == (0, "shop configured (generation 4)")
    assert load(SHOP, "x").spec == mcp.plane.registry["shop"].spec
    ran = await mcp("service", "rollback", "shop", "9")
    assert (ran.status, "there are 1 to 4" in ran.stderr) == (ExitCode.REFUSED, True)


async def test_show_says_how_the_folder_differs_and_export_applies_as_unchanged(mcp: Mcp, shop: Path) -> None:
    await mcp("deploy", "shop")
    assert f"# {shop} says the same" in (await mcp("service", "show", "shop")).lines
    mcp.write(FILE, SHOP.replace("web:v1", "web:v2"))
    assert f"# {shop} differs:" in (await mcp("service", "show", "shop")).lines
    exported = (await mcp("service", "export", "shop")).stdout
    assert (await mcp("apply", "-f", "-", stdin=exported)).lines == ["shop unchanged"]


@pytest.mark.parametrize("command", ["stop", "undeploy"])
async def test_what_cannot_be_written_down_is_said_with_what_it_means(mcp: Mcp, shop: Path, command: str) -> None:
    await mcp("deploy", "shop")
    mcp.write(FILE, "no TOML")
    ran = await mcp(command, "shop")
    assert (ran.status, "Usage" in ran.stderr) == (ExitCode.FAILED, False)
    assert "the agent does it, but " in ran.stderr
    assert "active = false was not written: write it there yourself, or the next deploy undoes it" in ran.stderr


async def test_all_that_is_validated_is_one_document(mcp: Mcp, shop: Path) -> None:
    mcp.write("services/blog.toml", SHOP.replace('"shop"', '"blog"'))
    checked = json.loads((await mcp("service", "validate", str(shop.parent), "-o", "json")).stdout)
    assert [one["spec"]["name"] for one in checked["definitions"]] == ["blog", "shop"]


async def test_a_new_definition_is_valid_and_made_once(mcp: Mcp) -> None:
    ran = await mcp("service", "new", "blog")
    path = mcp.folder / "services/blog.toml"
    assert (ran.status, str(path) in ran.lines[0]) == (0, True)
    assert (await mcp("service", "validate", str(path))).lines == [f"{path}: ok, blog with 1 component"]
    assert (await mcp("service", "validate", "blog")).lines == [f"{path}: ok, blog with 1 component"]
    assert (await mcp("service", "validate", "nobody")).status == ExitCode.USAGE
    assert (await mcp("service", "new", "blog")).status == ExitCode.USAGE
    assert (await mcp("service", "new", "Blog!")).status == ExitCode.USAGE
    path.write_text("name = 3")
    ran = await mcp("service", "validate", str(path))
    assert (ran.status, ran.stderr.startswith(f"{path}:1: ")) == (ExitCode.REFUSED, True)


def editor(mcp: Mcp, *steps: str) -> str:
    """An editor that does one of these each time it is opened, and remembers what it saw."""
    (mcp.folder / "steps").mkdir()
    for number, step in enumerate(steps):
        mcp.write(f"steps/{number}", step)
    script = mcp.folder / "editor"
    script.write_text(
        f"""#!/bin/sh
cd {mcp.folder}/steps
first=$(ls | grep -v seen | head -n 1)
cp "$1" "seen-$first"
sh "$first" "$1" || exit 3
rm "$first"
"""
    )
    script.chmod(0o755)
    return str(script)


async def test_an_edit_that_is_wrong_is_opened_again_with_what_is_wrong(mcp: Mcp, shop: Path) -> None:
    program = editor(
        mcp,
        "sed -i 's/reg:5000.web:v1/?/' $1; touch -d tomorrow $1",
        "sed -i 's,\"?\",\"reg:5000/web:v3\",' $1; touch -d 'next week' $1",
    )
    ran = await mcp("service", "edit", "shop", "--deploy", VISUAL=program)
    assert ran.status == 0, ran.stderr
    seen = (mcp.folder / "steps/seen-1").read_text()
    assert seen.startswith("#! shop.toml:6: components[0].image: ")
    assert (mcp.folder / FILE).read_text() == SHOP.replace("web:v1", "web:v3")
    assert mcp.plane.registry["shop"].spec.components[0].image == "reg:5000/web:v3"


@pytest.mark.parametrize(
    ("second", "status"), [("touch -d tomorrow $1", ExitCode.REFUSED), (":", 0), ("exit 3", ExitCode.FAILED)]
)
async def test_of_an_edit_that_stays_wrong_nothing_is_lost(mcp: Mcp, shop: Path, second: str, status: int) -> None:
    program = editor(mcp, "sed -i 's/^name = .shop./naem = 1/' $1; touch -d 'next week' $1", second)
    ran = await mcp("service", "edit", "shop", VISUAL=program, TMPDIR=str(mcp.folder))
    assert (ran.status, (mcp.folder / FILE).read_text()) == (status, SHOP)
    kept = ran.stderr.partition("what you wrote is in ")[2].split()[0]
    assert (mcp.folder / kept).read_text() == SHOP.replace('name = "shop"', "naem = 1", 1)


async def test_an_edit_of_nothing_changes_nothing(mcp: Mcp, shop: Path) -> None:
    ran = await mcp("service", "edit", "shop", VISUAL=editor(mcp, ":"))
    assert (ran.status, ran.lines) == (0, [f"{shop} left as it was"])


async def test_what_is_asked_for_in_yaml_is_what_json_says(mcp: Mcp, shop: Path) -> None:
    await mcp("deploy", "shop")
    in_yaml = yaml.safe_load((await mcp("list", "-o", "yaml")).stdout)
    assert in_yaml == json.loads((await mcp("list", "-o", "json")).stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_completes_services_commands_and_options(mcp: Mcp, shop: Path, shell: str) -> None:
    assert "_MCP_COMPLETE" in (await mcp("completion", shell)).stdout
    await mcp("apply", "-q", "-f", "-", stdin=SHOP.replace('"shop"', '"shed"'))
    for line, found in (("mcp stop sh", {"shop", "shed"}), ("mcp rest", {"restart"}), ("mcp node und", {"undrain"})):
        words = {"bash": line, "zsh": line, "fish": line}[shell]
        fish = {"COMP_CWORD": line.split()[-1]} if shell == "fish" else {"COMP_CWORD": str(len(line.split()) - 1)}
        ran = await mcp(COMP_WORDS=words, _MCP_COMPLETE=f"{shell}_complete", **fish)
        assert all(name in ran.stdout for name in found), (line, ran)


async def test_completion_without_an_agent_knows_the_folder(offline: Mcp) -> None:
    (offline.folder / "services").mkdir()
    offline.write("services/shop.toml", SHOP)
    ran = await offline(COMP_WORDS="mcp stop sh", COMP_CWORD="2", _MCP_COMPLETE="bash_complete")
    assert ran.stdout == "plain,shop\n"
