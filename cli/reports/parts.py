"""What services consist of, and what it does."""

from datetime import datetime

from api.inspection import LogStream, NodeUsage
from api.model import Model
from api.service import Certificate, Container, RouteClaim
from cli.reports.common import Unasked


class NodeContainer(Container):
    """A container, and where it is."""

    node: str
    """Empty where --address named the agent."""


class ContainersReport(Model):
    """`mcp ps`"""

    containers: tuple[NodeContainer, ...]
    unasked: tuple[Unasked, ...] = ()


class Route(Model):
    """A name under which a service is reached, and where it leads."""

    node: str
    service: str
    claim: RouteClaim


class RoutesReport(Model):
    """`mcp routes`"""

    routes: tuple[Route, ...]
    unasked: tuple[Unasked, ...] = ()


class ServiceCertificate(Model):
    """One certificate, and whose it is."""

    node: str
    service: str
    certificate: Certificate


class CertificatesReport(Model):
    """`mcp certs`"""

    certificates: tuple[ServiceCertificate, ...]
    unasked: tuple[Unasked, ...] = ()


class LoggedLine(Model):
    """`mcp logs`: one of these a line."""

    component: str
    container: str
    """Its name."""
    stream: LogStream
    at: datetime | None
    """As exactly as the engine tells; null where it does not."""
    text: str
    """What is no UTF-8 is replaced."""


class UsedNode(Model):
    """What a node's containers use."""

    node: str
    """Empty where --address named the agent."""
    usage: NodeUsage


class UsageReport(Model):
    """`mcp top`: one look."""

    nodes: tuple[UsedNode, ...]
    unasked: tuple[Unasked, ...] = ()
