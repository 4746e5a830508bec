"""Kinds of values that settings have: each check completes a sentence that begins with the value."""

import re
import shlex
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5})")


def absolute(value: str) -> str:
    """A path from the root on."""
    if not value.startswith("/"):
        raise ValueError("is not an absolute path")
    return value


def host_port(value: str) -> str:
    """An address to listen on or to ask."""
    found = HOST_PORT.fullmatch(value)
    if found is None or int(found[2]) > 65535:
        raise ValueError("is not host:port, such as 127.0.0.1:9464")
    return value


def https(value: str) -> str:
    """An https:// URL."""
    if not re.fullmatch(r"https://[^\s/]+(/\S*)?", value):
        raise ValueError("is not an https:// URL")
    return value


def or_empty(check: Callable[[str], str]) -> AfterValidator:
    """The same check, which an empty value passes too."""
    return AfterValidator(lambda value: check(value) if value else value)


def listed(value: object) -> object:
    """A variable is text, its entries divided by commas; a file has a list, which strict models do not take as such."""
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return tuple(value) if isinstance(value, list) else value


def words(value: object) -> object:
    """A variable is text, divided as a shell would, but for all that a shell replaces; a file has a list."""
    return tuple(shlex.split(value)) if isinstance(value, str) else listed(value)


AbsolutePath = Annotated[str, AfterValidator(absolute)]
"""A path from the root on."""

MaybePath = Annotated[str, or_empty(absolute)]
"""The same, or nothing."""
