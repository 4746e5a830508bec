"""Reads and writes a definition's TOML file, and says what is wrong with one in a person's words.

Everything that is wrong is said at once, each with file, line and field, so
that a file is mended in one go.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.complaints import DEFINITION, Complaint, Tables, complaints
from api.errors import InvalidSpec
from api.locate import Node, TooComplex, locate
from api.notation import field_location, toml_document
from api.spec import ServiceSpec

MAX_BYTES = 1024 * 1024
"""Size of a definition; the parser needs 10 bytes of memory and half a microsecond for each."""
MAX_PROBLEMS = 20
"""So many are told; a file with more is wrong as a whole."""
WIDTH = 100
"""Characters after which a list takes one line an item."""

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    source: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.source}:{self.line}", self.field, self.message) if part)


class InvalidManifest(InvalidSpec):
    """The file is no definition; `problems` says all that is wrong with it, from top to bottom."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems[0].field, "\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Manifest:
    """A definition, and the file it was read from."""

    spec: ServiceSpec
    source: str
    lines: Node

    def locate(self, field: str) -> int:
        """The line of a field such as `components[0].routes[1].port`, or of what is nearest around it."""
        return self.lines.line_of(field_location(field))

    def invalid(self, error: InvalidSpec) -> InvalidManifest:
        """What somebody else found wrong with this definition, with its place in the file."""
        return InvalidManifest((Problem(self.source, self.locate(error.field), error.field, error.message),))


def load(content: bytes | str, source: str) -> Manifest:
    """Reads a definition; `source` is the file's name in messages. Raises InvalidManifest."""
    spec, lines = read(content, source, ServiceSpec, DEFINITION)
    return Manifest(spec, source, lines)


def read(content: bytes | str, source: str, model: type[AnyModel], tables: Tables) -> tuple[AnyModel, Node]:
    """Reads any TOML file that `model` describes, and where its fields are. Raises InvalidManifest."""
    text = _text(content, source)
    try:
        lines = locate(text)
    except TooComplex as error:
        raise _invalid(source, error.line, str(error)) from error
    document = _parse(text, source)
    try:
        # As JSON, since pydantic's strict mode takes lists for tuples and texts for enums there alone.
        return model.model_validate_json(json.dumps(document, default=_stand_in), strict=True), lines
    except ValidationError as error:
        raise _translate(complaints(error, document, tables), lines, source) from error


def dump(spec: ServiceSpec) -> str:
    """A definition as a TOML file that holds what was set and nothing else; `load` gives back an equal one."""
    return toml_document(spec.model_dump(mode="json", exclude_defaults=True), WIDTH)


def _text(content: bytes | str, source: str) -> str:
    encoded = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    if len(encoded) > MAX_BYTES:
        raise _invalid(source, 1, f"the file is larger than {MAX_BYTES // 1024} KiB, which no definition needs")
    try:
        text = encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        raise _invalid(
            source, line, f"byte {encoded[error.start]:#04x} is not UTF-8: save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _invalid(source, line, "the file contains a NUL character: it is not a text file")
    return text.replace("\r\n", "\n")


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _PLACE.search(message)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        raise _invalid(source, line, f"this is not TOML: {_PLACE.sub('', message)}") from error
    except (RecursionError, ValueError) as error:
        raise _invalid(
            source, 1, "this is not TOML that can be read: something in it is too deep or too long"
        ) from error


def _stand_in(_: object) -> float:
    """For dates and times, which JSON lacks: a value that no field accepts, as none accepts those."""
    return 0.5


def _translate(found: Iterable[Complaint], lines: Node, source: str) -> InvalidManifest:
    problems = sorted(
        (Problem(source, lines.line_of(one.location), one.field, one.message) for one in found),
        key=lambda problem: problem.line,
    )
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [Problem(source, problems[MAX_PROBLEMS].line, "", f"and {rest} more problems")]
    return InvalidManifest(tuple(problems))


def _invalid(source: str, line: int, message: str) -> InvalidManifest:
    return InvalidManifest((Problem(source, line, "", message),))
