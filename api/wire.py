"""Turns models into messages and back, driven by the messages' own descriptors.

A model and its message have the same field names (a test walks them all), so
there is nothing to keep in step here when a field is added.
"""

from collections.abc import Callable, Mapping
from datetime import UTC
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel

from api.gen.mcp.v1 import spec_pb2

AnyModel = TypeVar("AnyModel", bound=BaseModel)
AnyMessage = TypeVar("AnyMessage", bound=Message)

Setter = Callable[[Message, str, Any], None]
Getter = Callable[[Message, str], Any]

_TIMESTAMP = Timestamp.DESCRIPTOR.full_name
_STRING_LIST = spec_pb2.StringList.DESCRIPTOR.full_name


def to_wire(model: BaseModel, message: AnyMessage) -> AnyMessage:
    """Fills `message` from `model` and returns it; what is None stays unset."""
    for name, set_field, _ in _accessors(message.DESCRIPTOR):
        value = getattr(model, name)
        if value is not None:
            set_field(message, name, value)
    return message


def from_wire(message: Message, model: type[AnyModel]) -> AnyModel:
    """The model that `message` carries. Raises pydantic.ValidationError where it carries none."""
    return model.model_validate(_fields(message))


def _fields(message: Message) -> dict[str, Any]:
    fields = {}
    for name, _, get_field in _accessors(message.DESCRIPTOR):
        value = get_field(message, name)
        if value is not None:
            fields[name] = value
    return fields


@cache
def _accessors(descriptor: Descriptor) -> tuple[tuple[str, Setter, Getter], ...]:
    return tuple((field.name, *_accessor(field)) for field in descriptor.fields)


def _accessor(field: FieldDescriptor) -> tuple[Setter, Getter]:
    if field.message_type is None:
        return _scalar_accessor(field)
    if field.message_type.GetOptions().map_entry:
        return _set_map, lambda message, name: dict(getattr(message, name))
    if field.is_repeated:
        return _set_messages, lambda message, name: [_fields(item) for item in getattr(message, name)]
    return _message_accessor(field.message_type)


def _scalar_accessor(field: FieldDescriptor) -> tuple[Setter, Getter]:
    if field.is_repeated:
        return _set_list, lambda message, name: list(getattr(message, name))
    if field.has_presence:
        return _set_scalar, _get_if_set(lambda value: value)
    return _set_scalar, getattr


def _message_accessor(kind: Descriptor) -> tuple[Setter, Getter]:
    if kind.full_name == _TIMESTAMP:
        return _set_timestamp, _get_if_set(lambda value: value.ToDatetime(tzinfo=UTC))
    if kind.full_name == _STRING_LIST:
        return _set_string_list, _get_if_set(lambda value: list(value.values))
    return _set_message, _get_if_set(_fields)


def _get_if_set(convert: Callable[[Any], Any]) -> Getter:
    return lambda message, name: convert(getattr(message, name)) if message.HasField(name) else None


def _set_scalar(message: Message, name: str, value: Any) -> None:
    setattr(message, name, value)


def _set_list(message: Message, name: str, value: Any) -> None:
    getattr(message, name).extend(value)


def _set_map(message: Message, name: str, value: Mapping[str, str]) -> None:
    getattr(message, name).update(value)


def _set_messages(message: Message, name: str, value: Any) -> None:
    repeated = getattr(message, name)
    for item in value:
        to_wire(item, repeated.add())


def _set_timestamp(message: Message, name: str, value: Any) -> None:
    getattr(message, name).FromDatetime(value)


def _set_string_list(message: Message, name: str, value: Any) -> None:
    wrapper = getattr(message, name)
    wrapper.SetInParent()
    wrapper.values.extend(value)


def _set_message(message: Message, name: str, value: Any) -> None:
    child = getattr(message, name)
    child.SetInParent()
    to_wire(value, child)
