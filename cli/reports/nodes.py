"""What is known of nodes, and of this command."""

from api.inspection import Finding
from api.model import Model
from api.service import NodeStatus
from cli.reports.common import Unasked


class KnownNode(Model):
    """A node of mcp.toml, and whether its agent answers."""

    name: str
    address: str
    status: NodeStatus | None = None
    error: str = ""


class NodesReport(Model):
    """`mcp node list` and `mcp node status`"""

    nodes: tuple[KnownNode, ...]


class ChangedNode(Model):
    """`mcp node add` and `mcp node remove`"""

    name: str
    path: str
    """The file that was written."""


class CompletionReport(Model):
    """`mcp completion`"""

    shell: str
    script: str


class Diagnosis(Model):
    """One finding, and where it was made."""

    node: str
    """Empty: on this machine, or at the address that was given."""
    finding: Finding


class DoctorReport(Model):
    """`mcp doctor`"""

    findings: tuple[Diagnosis, ...]


class VersionReport(Model):
    """`mcp version`"""

    version: str
    nodes: tuple[NodeStatus, ...] = ()
    """What the agents say; none where none is configured."""
    unasked: tuple[Unasked, ...] = ()
