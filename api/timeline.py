"""An event as programs get it: `mcp events -o json` prints it, and the command of an agent's alerts reads it."""

from api.service import Event


class NodeEvent(Event):
    """An event, and where it was."""

    node: str
    """Empty where --address named the agent."""
