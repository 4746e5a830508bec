"""Stands between what is planned and the engine: nothing is created or started that the node's policy forbids.

It looks where links lead in the last moment, as a container can move them in
the folders that it may write.
"""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.conditions import Reason, Status
from reconcilers.base import Outcome, Plan, Terminal
from reconcilers.containers.actions import Create, Replace
from reconcilers.containers.engine.request import ContainerRequest
from reconcilers.containers.policy import Ground, Policy, mounts, violations

_LOOKED_AT_AGAIN: Final = timedelta(minutes=1)
"""A person may have moved a link meanwhile, of which nobody tells."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The policy of one node."""

    policy: Policy
    ground: Ground

    def check(self, request: ContainerRequest) -> None:
        """Raises Terminal, with all that is forbidden in the request."""
        _refuse(request.name, self._violations(request))

    def check_mounts(self, service: str, name: str, sources: Collection[str]) -> None:
        """Raises Terminal where a container that exists would now mount what is forbidden."""
        _refuse(name, mounts(tuple(sources), service, self.policy, self.ground, real_path))

    def admitted(self, plan: Plan) -> Plan:
        """The plan without what is forbidden: what runs stays as it is, and a dry run says so as well."""
        kept, said = [], []
        for action in plan.actions:
            problems = self._violations(action.request) if isinstance(action, Create | Replace) else ()
            if problems:
                said.append(_sentence(action.subject, problems))
            else:
                kept.append(action)
        if not said:
            return plan
        again = plan.outcome.requeue_after or _LOOKED_AT_AGAIN
        return Plan(tuple(kept), Outcome(Status.FALSE, Reason.FORBIDDEN, "; ".join(said), again))

    def _violations(self, request: ContainerRequest) -> tuple[str, ...]:
        return violations(json.loads(request.body), request.service, self.policy, self.ground, real_path)


def real_path(path: str) -> str:
    """The path without links, also of what does not exist; empty where the agent may not look."""
    try:
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)
    except OSError:
        return ""


def _refuse(name: str, problems: tuple[str, ...]) -> None:
    if problems:
        raise Terminal(Reason.FORBIDDEN, _sentence(name, problems))


def _sentence(name: str, problems: tuple[str, ...]) -> str:
    return f"{name}: {'; '.join(problems)}"
