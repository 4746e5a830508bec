"""Amounts as people write them: `1m30s`, `512M`. They are stored as written and read here, in one place."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_LONGEST = timedelta(days=365)

_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_LARGEST = 1 << 50


def duration(text: str) -> timedelta:
    """Reads `500ms`, `10s`, `1m30s`, `12h`, `7d`. Raises ValueError with what is wrong."""
    if not _DURATION.fullmatch(text):
        raise ValueError('is not a duration such as "10s", "1m30s" or "500ms"')
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"is longer than {_LONGEST.days} days")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """Reads `512M`, `1.5G`, `64k`, `1048576`, in powers of 1024; bytes. Raises ValueError with what is wrong."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError('is not a size such as "512M", "2G" or "1048576"')
    amount = int(float(found[1]) * _BYTES[found[2].upper()])
    if amount > _LARGEST:
        raise ValueError("is more than 1024T")
    return amount


def _duration(text: str) -> str:
    duration(text)
    return text


def _positive_duration(text: str) -> str:
    if duration(text) <= timedelta():
        raise ValueError("must be longer than nothing")
    return text


def _size(text: str) -> str:
    size(text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]
"""A span of time, which may be none: `0s`, `10s`, `1m30s`."""
PositiveDuration = Annotated[str, AfterValidator(_positive_duration)]
"""A span of time that is not none."""
Size = Annotated[str, AfterValidator(_size)]
"""An amount of memory or disk: `512M`."""
