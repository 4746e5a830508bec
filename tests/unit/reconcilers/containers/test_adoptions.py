"""What a listing shows of containers that were taken over."""

from api.service import ContainerState
from reconcilers.containers import model
from reconcilers.containers.engine.adoptions import Adoptions
from reconcilers.containers.model import ContainerObservation, Observation

OURS = {model.MANAGED_BY: model.MANAGER, model.NODE: "rift", model.SERVICE: "web", model.COMPONENT: "web"}


def container(container_id: str) -> ContainerObservation:
    return ContainerObservation(container_id, container_id, "x:1", ContainerState.RUNNING, labels={"team": "a"})


def test_an_adopted_container_is_ours_until_it_is_forgotten() -> None:
    adoptions = Adoptions()
    listed = Observation({name: container(name) for name in ("one", "other")})
    assert adoptions.labelled(listed) == listed
    adoptions.remember({"one": OURS, "gone": OURS})
    shown = adoptions.labelled(listed)
    assert [(one.id, one.owned_by("rift"), one.service) for one in shown] == [
        ("one", True, "web"),
        ("other", False, ""),
    ]
    assert shown.containers["one"].labels["team"] == "a"
    adoptions.forget(["one", "unknown"])
    assert adoptions.labelled(listed) == listed
