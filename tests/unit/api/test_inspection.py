"""What only the node can see has the same fields as a model and as a message."""

import pytest

from api import inspection
from api.gen.mcp.v1 import inspection_pb2
from api.model import Model
from api.wire import from_wire, to_wire

MODELS = {
    name: kind
    for name, kind in vars(inspection).items()
    if isinstance(kind, type) and issubclass(kind, Model) and kind is not Model
}
MESSAGES = {
    name: descriptor
    for name, descriptor in inspection_pb2.DESCRIPTOR.message_types_by_name.items()
    if not name.endswith(("Request", "Response"))
}


def test_every_model_has_a_message() -> None:
    assert MODELS.keys() == MESSAGES.keys()


@pytest.mark.parametrize("name", MODELS)
def test_every_field_of_a_model_is_a_field_of_its_message(name: str) -> None:
    assert list(MODELS[name].model_fields) == [field.name for field in MESSAGES[name].fields]


def test_what_is_unknown_stays_unknown_on_the_way() -> None:
    usage = inspection.ContainerUsage(container="a", owned=True, cpu=0.0)
    assert from_wire(to_wire(usage, inspection_pb2.ContainerUsage()), inspection.ContainerUsage) == usage
