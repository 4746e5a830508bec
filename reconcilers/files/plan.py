"""Which file is laid down, removed or forgotten: the whole decision, and nothing but the decision."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

from api.conditions import Reason, Status
from api.files import ServiceFile
from api.service import FieldChange, Finalizer, Service
from reconcilers.base import CONVERGED, NOT_NEEDED, Action, Outcome, Plan
from reconcilers.files.model import NOTHING, Found, Observed

# Whoever still runs may still read, and write.
_GO_FIRST = frozenset({Finalizer.ROUTES, Finalizer.CONTAINERS})
_LOOK_AGAIN = timedelta(minutes=1)
"""Only a safety net: what changes in a folder that matters is told."""
_LOOK_BLINDLY = timedelta(seconds=50)
"""Where it is not; so often that the look is not worth a write each time."""


@dataclass(frozen=True, slots=True)
class FileAction(Action):
    """Something to do about one file."""

    file: ServiceFile

    @property
    def subject(self) -> str:
        """The path below the service's folder."""
        return self.file.path


@dataclass(frozen=True, slots=True)
class LayDown(FileAction):
    """Puts the file where it belongs, in the place of what is there."""

    found: Found
    own: str
    verb: ClassVar[str] = "laid down"

    @property
    def changes(self) -> bool:
        """Whether another content lay there."""
        return self.found.sha256 != self.file.sha256

    @property
    def follows(self) -> bool:
        """It follows from a push, unless it had been laid down since."""
        return not self.file.laid

    def describe(self) -> str:
        """One line for a person."""
        cause = f"pushed by {self.file.actor}"
        if self.file.laid:
            differs = ", ".join(change.path for change in self.differences())
            cause = f"{differs} changed" if self.found.sha256 else "it was gone"
        return f"lay down {self.subject} ({cause})"

    def differences(self) -> tuple[FieldChange, ...]:
        """Content, mode and owner, where they differ."""
        return tuple(
            FieldChange(path=name, old=old or None, new=new)
            for name, old, new in _fields(self.file, self.found, self.own)
            if old != new
        )


@dataclass(frozen=True, slots=True)
class Confirm(FileAction):
    """Finds that a file lies there as it was pushed: nothing is written, and whoever reads it keeps his."""

    verb: ClassVar[str] = "found"

    @property
    def follows(self) -> bool:
        """It follows from a push."""
        return True

    def describe(self) -> str:
        """One line for a person."""
        return f"find {self.subject} (it lies there as {self.file.actor} pushed it)"


@dataclass(frozen=True, slots=True)
class _End(FileAction):
    """The end of a file that is not kept any more."""

    @property
    def follows(self) -> bool:
        """It follows from a person's wish, even where the service stays."""
        return self.file.removed

    @property
    def whose(self) -> str:
        """By whom, where a person took it back."""
        return f"unpushed by {self.file.actor}" if self.file.removed else ""


@dataclass(frozen=True, slots=True)
class Remove(_End):
    """Removes a file that is as it was laid down, and what is known of it."""

    verb: ClassVar[str] = "removed"

    def describe(self) -> str:
        """One line for a person."""
        return f"remove {self.subject}" + (f" ({self.whose})" if self.whose else "")


@dataclass(frozen=True, slots=True)
class Forget(_End):
    """Drops what is known of a file and leaves what lies there alone."""

    cause: str = field(default="")
    verb: ClassVar[str] = "forgot"

    def describe(self) -> str:
        """One line for a person."""
        causes = ", ".join(filter(None, (self.whose, self.cause)))
        return f"forget {self.subject} ({causes})"


def looked_at(service: Service) -> tuple[ServiceFile, ...]:
    """The files of whose places something has to be known."""
    if not service.deleting:
        return tuple(file for file in service.files if file.managed or not file.laid)
    if _GO_FIRST.isdisjoint(service.finalizers):
        return tuple(file for file in service.files if file.managed)
    return ()


def plan(service: Service, observed: Observed, blind: str = "") -> Plan:
    """What to do for a service that is wanted, running or not; `blind`: why changes of its files are not told."""
    actions: list[FileAction] = []
    obstacles: list[Found] = []
    for file in service.files:
        found = observed.found.get(file.path)
        if found is None:
            continue
        action = LayDown(file, found, observed.own)
        if found.problem and not (file.removed and found.reason is Reason.CONFLICT):
            obstacles.append(found)
        elif file.removed:
            actions.append(_removal(file, found))
        elif action.differences():
            actions.append(action)
        elif not file.laid:
            actions.append(Confirm(file))
    # One that cannot be laid down shall not keep others from it.
    actions.sort(key=lambda action: action.subject in observed.failed)
    return Plan(tuple(actions), _outcome(service.files, obstacles, blind))


def plan_deletion(service: Service, observed: Observed) -> Plan:
    """What to do for a service on its way out: only what is kept here as it lies there goes from the disk."""
    waiting = [finalizer for finalizer in service.finalizers if finalizer in _GO_FIRST]
    if waiting:
        return Plan((), Outcome(Status.FALSE, Reason.TERMINATING, f"waits until its {', '.join(waiting)} are gone"))
    return Plan(tuple(_removal(file, observed.found.get(file.path, NOTHING)) for file in service.files), NOT_NEEDED)


def assume(service: Service, actions: Iterable[Action]) -> Service:
    """The service with what `actions` leave behind."""
    files = {file.path: file for file in service.files}
    for action in actions:
        match action:
            case LayDown(file=file) | Confirm(file=file):
                files[file.path] = file.model_copy(update={"laid": True})
            case Remove() | Forget():
                files.pop(action.subject, None)
    return service.model_copy(update={"files": tuple(files.values())})


def _fields(file: ServiceFile, found: Found, own: str) -> tuple[tuple[str, str, str], ...]:
    mode = f"{found.mode:04o}" if found.sha256 else ""
    return (
        ("sha256", found.sha256, file.sha256),
        ("mode", mode, f"{file.mode:04o}"),
        ("owner", found.owner, file.owner or own),
    )


def _removal(file: ServiceFile, found: Found) -> FileAction:
    if not file.managed:
        return Forget(file, "it is not managed: what lies there stays")
    if not (found.sha256 or found.problem):
        return Forget(file, "nothing lies there")
    if found.problem or found.sha256 != file.sha256 or not (file.laid or file.removed):
        return Forget(file, "it is not as it was pushed: what lies there stays")
    return Remove(file)


def _outcome(files: tuple[ServiceFile, ...], obstacles: list[Found], blind: str) -> Outcome:
    if obstacles:
        reason = Reason.FILES_FAILED if any(one.reason is Reason.FILES_FAILED for one in obstacles) else Reason.CONFLICT
        return Outcome(Status.FALSE, reason, "; ".join(one.problem for one in obstacles), _LOOK_AGAIN)
    if blind:
        message = f"what others change is noticed within a minute, not at once: {blind}"
        return Outcome(Status.TRUE, Reason.CONVERGED, message, _LOOK_BLINDLY)
    return CONVERGED if files else NOT_NEEDED
