"""What became of wishes: applied, built, deleted, looked at."""

from enum import StrEnum

from api.model import Model
from api.service import Change, FieldChange, PlannedAction, Service
from cli.reports.common import Unasked
from cli.wait import End


class AppliedService(Model):
    """What became of one definition."""

    name: str
    node: str
    """Empty where --address named the agent."""
    change: Change
    generation: int
    fields: tuple[FieldChange, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    """In a dry run: what would be done, in order."""
    notes: tuple[str, ...] = ()
    """Of a rollback: what does not come back."""
    end: End | None = None
    """How the wait ended; null where there was none."""
    message: str = ""
    """What is wrong, or was still awaited."""
    seconds: float | None = None
    """From handing the definition over until the end."""
    service: Service
    """As it was last seen."""


class ApplyReport(Model):
    """`mcp apply`"""

    dry_run: bool
    services: tuple[AppliedService, ...]
    unasked: tuple[Unasked, ...] = ()
    """Those that were not applied."""


class ImageOutcome(StrEnum):
    """What became of an image that was to be built."""

    PRESENT = "present"
    """Its tag exists: nothing was done."""
    MISSING = "missing"
    """In a dry run: it would be built."""
    BUILT = "built"
    PUSHED = "pushed"
    """Built, and pushed to its registry."""


class BuiltImage(Model):
    """An image of `[build.images]`."""

    image: str
    """With registry and tag."""
    outcome: ImageOutcome
    digest: str | None = None
    """What the registry knows it by; null where it was not pushed, or podman did not tell."""
    seconds: float | None = None
    """How long building and pushing took."""


class BuildReport(Model):
    """`mcp build`"""

    dry_run: bool
    images: tuple[BuiltImage, ...]


class DifferingService(Model):
    """How one definition differs from what is there."""

    name: str
    node: str
    change: Change
    fields: tuple[FieldChange, ...]
    actions: tuple[PlannedAction, ...]


class DiffReport(Model):
    """`mcp diff`"""

    services: tuple[DifferingService, ...]
    unasked: tuple[Unasked, ...] = ()


class DeletedService(Model):
    """What became of one service that was to be taken away."""

    name: str
    node: str
    """Empty where --address named the agent."""
    actions: tuple[PlannedAction, ...] = ()
    end: End | None = None
    message: str = ""
    seconds: float | None = None


class DeleteReport(Model):
    """`mcp delete`"""

    dry_run: bool
    services: tuple[DeletedService, ...]
    unasked: tuple[Unasked, ...] = ()


class SyncReport(ApplyReport):
    """`mcp sync`"""

    images: tuple[BuiltImage, ...] = ()
    """With --build."""
    pruned: tuple[str, ...] = ()
    """With --prune, as NODE/SERVICE."""


class PurgeReport(Model):
    """`mcp purge`"""

    dry_run: bool
    services: tuple[str, ...]
    """As NODE/SERVICE."""
    unasked: tuple[Unasked, ...] = ()


class LookedService(Model):
    """A service, and who looked at it."""

    service: Service
    """With the conditions that were found."""
    late: tuple[str, ...] = ()
    """The reconcilers that have not looked in time; they will."""


class LookedServices(Model):
    """`mcp suspend` and `mcp reconcile`"""

    services: tuple[LookedService, ...]
    unasked: tuple[Unasked, ...] = ()


class ResumedServices(Model):
    """`mcp resume`"""

    services: tuple[Service, ...]
    unasked: tuple[Unasked, ...] = ()


class AdoptReport(Model):
    """`mcp adopt`"""

    dry_run: bool
    service: Service
    """With the definition that was written."""
    containers: tuple[str, ...]
    """The names of those that were taken over."""
    notes: tuple[str, ...]
    """What podman does not tell of them, and what will be otherwise."""
