"""As much of journalctl(1) as deploy/install asks for: what a unit of $UNIT_ROOT said."""

import os
import sys
from pathlib import Path

RUN = Path(os.environ["UNIT_ROOT"]) / "run" / "systemd" / "system"


def main() -> int:
    """Prints what the unit said, since ever."""
    if "--sync" in sys.argv:
        return 0
    options = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    sys.stdout.write((RUN / f"{options['--unit']}.log").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
