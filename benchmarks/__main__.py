"""`python -m benchmarks [NAME...]`: measures, prints a table, and writes it into docs/."""

import sys
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import boot, lifecycle, many, standing, switch
from benchmarks.figures import Result
from benchmarks.report import Report

BENCHMARKS: Final[Mapping[str, Callable[[], list[Result]]]] = {
    "apply": lifecycle.apply,
    "killed": lifecycle.killed,
    "removed": lifecycle.removed,
    "drift": lifecycle.drift,
    "switch": switch.switch,
    "twenty": many.twenty,
    "boot": boot.boot,
    "idle": standing.idle,
    "restart": standing.restart,
    "commands": standing.commands,
}


def main(names: list[str]) -> int:
    """Runs those benchmarks, all unless some are named; the results of the others stay. Returns the exit code."""
    if unknown := set(names) - BENCHMARKS.keys():
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 64
    report = Report.load(tuple(BENCHMARKS))
    for name in names or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name].__doc__}", file=sys.stderr)
        report.add(name, BENCHMARKS[name]())
        report.write()
    report.show(names or tuple(BENCHMARKS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
