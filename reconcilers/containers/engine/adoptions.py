"""Containers that somebody had MCP take over as they run: what their labels would say, had MCP made them.

The labels of a container cannot be changed. So the engine's listings are given
these on the way in, and nobody behind them has to know the difference. They
are those of the request that the container answers to: once another one is
wanted, it is replaced by a container with labels of its own. Kept in the
registry, as nothing on the container itself tells of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconcilers.containers.model import Observation

Labels = Mapping[str, str]


class Adoptions:
    """The labels of adopted containers, by their ids."""

    def __init__(self) -> None:
        self._labels: dict[str, Labels] = {}

    def remember(self, labels: Mapping[str, Labels]) -> None:
        """Has these containers shown with these labels from now on, beside their own."""
        self._labels |= labels

    def forget(self, ids: Iterable[str]) -> None:
        """Has these containers shown as they are."""
        for container_id in ids:
            self._labels.pop(container_id, None)

    def labelled(self, listed: Observation) -> Observation:
        """A listing in which the adopted are labelled."""
        adopted = {
            container.id: replace(container, labels={**container.labels, **self._labels[container.id]})
            for container in listed
            if container.id in self._labels
        }
        return Observation({**listed.containers, **adopted}) if adopted else listed
