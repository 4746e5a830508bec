"""What reports have in common."""

from api.conditions import ConditionType
from api.model import Model


class Unasked(Model):
    """A node that did not answer, or a service for which nothing was done."""

    node: str
    """Empty where it is not known on which the service is, or where --address named the agent."""
    service: str = ""
    """Empty where the node was asked about all that it has."""
    error: str


SHORT = {
    ConditionType.PORTS_ALLOCATED: "ports",
    ConditionType.CERTIFICATES_READY: "certs",
    ConditionType.FILES_IN_PLACE: "files",
    ConditionType.CONTAINERS_RUNNING: "containers",
    ConditionType.ROUTES_PROGRAMMED: "routes",
}
"""What people call the conditions, in the order in which they usually turn true."""
