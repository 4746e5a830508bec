"""docs/reference/agent.md names everything an operator can set, see or scrape."""

from pathlib import Path

import pytest

from api.conditions import ConditionType, Reason
from controller.metrics import Metrics
from controller.settings import variables
from controller.wakes import ALL
from scripts import reference

PAGE = reference.PAGE.read_text()


def test_the_page_is_what_the_code_says() -> None:
    assert reference.page() == PAGE


@pytest.mark.parametrize("name", [*ConditionType, *Reason])
def test_every_condition_and_reason_is_explained(name: str) -> None:
    assert f"| `{name}` | " in PAGE


def test_every_setting_is_named_with_its_variable() -> None:
    for variable, path in variables():
        assert f"| `{'.'.join(path)}` | `{variable}` |" in PAGE


def test_every_metric_is_named() -> None:
    for family in Metrics(ALL).registry.collect():
        if family.name.startswith("mcp_"):
            assert f"| `{family.name}" in PAGE


def test_the_readme_links_to_pages_that_exist() -> None:
    root = Path(reference.__file__).parent.parent
    text = (root / "README.md").read_text()
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    missing = [link for link in links if not link.startswith("http") and not (root / link).exists()]
    assert missing == []
