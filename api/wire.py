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
from api.secrecy import hidden
from api.spec import ComponentSpec, ServiceSpec

AnyModel = TypeVar("AnyModel", bound=BaseModel)
AnyMessage = TypeVar("AnyMessage", bound=Message)

Setter = Callable[[Message, str, Any], None]
Getter = Callable[[Any], Any]

_TIMESTAMP = Timestamp.DESCRIPTOR.full_name
_STRING_LIST = spec_pb2.StringList.DESCRIPTOR.full_name


def to_wire(model: BaseModel, message: AnyMessage) -> AnyMessage:
    """Fills `message` from `model` and returns it; what is None stays unset.

    What a definition marks as secret is masked in every message there is, so
    that nobody has to think of it; `definition_to_wire` alone tells it.
    """
    if isinstance(model, ComponentSpec):
        model = hidden(model)
    for name, set_field in _setters(message.DESCRIPTOR):
        value = getattr(model, name)
        if value is not None:
            set_field(message, name, value)
    return message


def definition_to_wire(spec: ServiceSpec) -> spec_pb2.ServiceSpec:
    """A definition on its way from its author to the agent, with its secrets."""
    message = to_wire(spec, spec_pb2.ServiceSpec())
    for component, sent in zip(spec.components, message.components, strict=True):
        sent.env[:] = component.env
    return message


def from_wire(message: Message, model: type[AnyModel]) -> AnyModel:
    """The model that `message` carries. Raises pydantic.ValidationError where it carries none."""
    return model.model_validate(_fields(message))


def _fields(message: Message) -> dict[str, Any]:
    """What the message says; of a thousand services most fields are unset, and cost nothing here."""
    absent, getters = _getters(message.DESCRIPTOR)
    fields = dict(absent)
    for field, value in message.ListFields():
        get = getters[field.name]
        fields[field.name] = value if get is None else get(value)
    return fields


@cache
def _setters(descriptor: Descriptor) -> tuple[tuple[str, Setter], ...]:
    return tuple((field.name, _setter(field)) for field in descriptor.fields)


def _setter(field: FieldDescriptor) -> Setter:
    if field.message_type is None:
        return _set_list if field.is_repeated else _set_scalar
    if _is_map(field):
        return _set_map
    if field.is_repeated:
        return _set_messages
    return {_TIMESTAMP: _set_timestamp, _STRING_LIST: _set_string_list}.get(field.message_type.full_name, _set_message)


@cache
def _getters(descriptor: Descriptor) -> tuple[Mapping[str, Any], Mapping[str, Getter | None]]:
    """What fields mean that are not set, unless that is None, and how those are read that are."""
    absent = {
        field.name: () if field.is_repeated else field.default_value
        for field in descriptor.fields
        if not field.has_presence and not _is_map(field)
    }
    return absent, {field.name: _getter(field) for field in descriptor.fields}


def _getter(field: FieldDescriptor) -> Getter | None:
    if _is_map(field):
        return dict
    if field.message_type is None:
        return list if field.is_repeated else None
    if field.is_repeated:
        return lambda items: [_fields(item) for item in items]
    if field.message_type.full_name == _TIMESTAMP:
        return lambda value: value.ToDatetime(tzinfo=UTC)
    if field.message_type.full_name == _STRING_LIST:
        return lambda value: list(value.values)
    return _fields


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


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
