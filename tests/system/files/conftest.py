"""A whole agent for the tests of files."""

from tests.system.agent.conftest import rig, stopped

__all__ = ["rig", "stopped"]
