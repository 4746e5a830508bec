"""Keeps what was measured: in docs/performance.json, and as a table in docs/performance.md."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Result

_DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_PAGE: Final = _DOCS / "performance.md"
_DATA: Final = _DOCS / "performance.json"
_FIGURES: Final = re.compile(r"(?<=<!-- figures -->\n).*(?=<!-- end of figures -->)", re.DOTALL)
_COLUMNS: Final = ("what", "MCP", "against", "takes", "ratio", "n")


@dataclass
class Report:
    """Results by the benchmark's name, the last of each; `order` is the order in which they are shown."""

    order: tuple[str, ...]
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, order: tuple[str, ...]) -> Self:
        """What earlier runs left."""
        return cls(order, json.loads(_DATA.read_text()) if _DATA.exists() else {})

    def add(self, name: str, results: Iterable[Result]) -> None:
        """Takes in what was just measured."""
        results = list(results)
        self.measured[name] = {
            "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "machine": machine(),
            "load": round(os.getloadavg()[1], 1),
            "rows": [result.row() for result in results],
            "data": [result.data() for result in results],
        }

    def write(self) -> None:
        """Writes the data, and the table into the page."""
        kept = {name: self.measured[name] for name in self.order if name in self.measured}
        _DATA.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        _PAGE.write_text(_FIGURES.sub(lambda _: self._markdown(kept), _PAGE.read_text()))

    def show(self, names: Iterable[str]) -> None:
        """Prints the table of these benchmarks."""
        table = Table(*_COLUMNS, title=machine(), title_justify="left")
        for name in names:
            for row in self.measured[name]["rows"]:
                table.add_row(*row)
        Console(soft_wrap=True).print(table)

    def _markdown(self, measured: dict[str, dict[str, Any]]) -> str:
        lines = [f"| {' | '.join(_COLUMNS)} |", "|---|--:|---|--:|--:|--:|"]
        lines += [f"| {' | '.join(row)} |" for each in measured.values() for row in each["rows"]]
        lines.append("")
        circumstances: dict[tuple[str, str], list[str]] = {}
        for name, each in measured.items():
            circumstances.setdefault((each["date"][:10], each["machine"]), []).append(f"{name} (load {each['load']})")
        for (date, where), names in circumstances.items():
            lines.append(f"Measured on {date}, {where}: {', '.join(names)}.")
        return "\n".join(lines) + "\n"


def machine() -> str:
    """What it was measured on, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [_version("podman", "--version"), _version("haproxy", "-v").partition("-")[0]]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(versions)
    )


def _version(*argv: str) -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    shown = subprocess.run(argv, check=True, capture_output=True, text=True, env={"PATH": path}).stdout
    return shown.splitlines()[0]
