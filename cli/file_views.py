"""What people see of the files that were pushed to a service. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from api.conditions import ConditionType, Status
from api.files import ServiceFile
from api.service import Service
from cli.output import Row, Table
from cli.views import age, moment

_SHOWN = 8
"""Files of a service among all that is known of it."""


def size(count: int) -> str:
    """Bytes, as a person reads them."""
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def state(file: ServiceFile, service: Service) -> str:
    """Whether it lies there, and what keeps it from it."""
    if file.laid:
        return "unpushed" if file.removed else "laid down"
    condition = service.condition(ConditionType.FILES_IN_PLACE)
    away = condition is not None and condition.status is Status.FALSE
    why = f": {condition.reason}" if condition is not None and away else " yet"
    return f"{'unpushed, not done' if file.removed else 'not laid down'}{why}"


def files_table(service: Service, files: Iterable[ServiceFile]) -> Table:
    """One row a file, or a revision of one."""
    current = {(file.path, file.revision) for file in service.files}
    rows = tuple(
        (
            file.path,
            size(file.size),
            f"{file.mode:04o}",
            file.owner,
            "yes" if file.managed else "",
            state(file, service) if (file.path, file.revision) in current or file.removed else "earlier",
            str(file.revision),
            str(file.generation),
            moment(file.at),
            file.actor,
        )
        for file in files
    )
    return Table(("PATH", "SIZE", "MODE", "OWNER", "MANAGED", "STATE", "REV", "GEN", "PUSHED", "BY"), rows)


def files_rows(service: Service, now: datetime) -> Iterator[Row]:
    """A line for each of the first files, those before all others that do not lie there."""
    files = sorted(service.files, key=lambda file: (file.laid, file.path))
    for file in files[:_SHOWN]:
        words = [f"{file.mode:04o}"]
        words += [file.owner] if file.owner else []
        words += ["managed"] if file.managed else []
        by = f"{'unpushed' if file.removed else 'pushed'} {age(file.at, now)} ago by {file.actor}"
        line = f"{file.path}: {size(file.size)}, {', '.join((*words, state(file, service)))}; {by}"
        yield Row("", line, "" if file.laid else "yellow")
    if len(files) > _SHOWN:
        yield Row("", f"and {len(files) - _SHOWN} more: mcp files {service.name}", "dim")
