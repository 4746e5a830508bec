"""Finds the line on which a TOML document sets a field: the standard library's parser keeps no positions.

It also sees the few shapes that would make that parser slow or crash it, before
it meets them. Text that is not TOML is none of its business: it keeps what it
can make of it and leaves the complaint to the parser.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAX_KEY_LENGTH = 256
"""Characters of one part of a key, or of one number."""
MAX_KEY_PARTS = 16
"""Parts of a dotted key; the parser takes time quadratic in them."""
MAX_NESTING = 16
"""Arrays and inline tables within each other; the parser recurses into them."""


class TooComplex(ValueError):
    """The document goes beyond a limit; the message names it, `line` is where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Node:
    """Where one field is set, and the fields within it."""

    line: int
    children: dict[str | int, "Node"] = field(default_factory=dict)

    def child(self, part: str | int, line: int) -> "Node":
        """The field within this one; a new one is set on `line`."""
        return self.children.setdefault(part, Node(line))

    def line_of(self, location: Iterable[str | int]) -> int:
        """The line of that field, or else of the nearest table or list around it."""
        node = self
        for part in location:
            if part not in node.children:
                break
            node = node.children[part]
        return node.line


def locate(text: str) -> Node:
    """The lines, counted from 1, of all fields of a document. Raises TooComplex."""
    return _Scanner(text).document()


# Each alternative takes what it begins, closed or not, so that no text is read twice.
_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<text>\"{3}(?:[^\\]|\\.)*?(?:\"{3,5}|\Z)|'{3}.*?(?:'{3,5}|\Z)|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?)
    | (?P<bare>[^\s\[\]{}=,.\#"']+)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(["\\]))')


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int

    def key(self) -> str:
        """What a key's part is called, without its quotes."""
        if self.kind == "bare" or self.text.startswith("'"):
            return self.text.strip("'")
        return _ESCAPE.sub(lambda found: found[3] or chr(min(int(found[1] or found[2], 16), 0x10FFFF)), self.text[1:-1])


_END = _Token("end", "", 0)


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        kind, value = found.lastgroup or "", found[0]
        if kind == "bare" and len(value) > MAX_KEY_LENGTH:
            raise TooComplex(line, f"has a key or number of {len(value)} characters; {MAX_KEY_LENGTH} are allowed")
        if kind != "blank":
            yield _Token(kind, value, line)
        line += value.count("\n")


class _Scanner:
    """Reads statements off the tokens, holding one of them in `_next`."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._root = Node(1)
        self._next = _END
        self._advance()

    def _advance(self) -> _Token:
        current, self._next = self._next, next(self._tokens, _END)
        return current

    def document(self) -> Node:
        table = self._root
        while self._next is not _END:
            if self._next.text == "[":
                table = self._header()
            elif self._next.kind in ("bare", "text"):
                self._pair(table)
            else:
                self._advance()
        return self._root

    def _header(self) -> Node:
        """`[a.b]` or `[[a.b]]`: the table that the next pairs belong to."""
        line = self._advance().line
        repeated = self._next.text == "["
        if repeated:
            self._advance()
        node = self._root
        parts = self._key()
        for position, part in enumerate(parts):
            node = node.child(part, line)
            if repeated and position == len(parts) - 1:
                node = node.child(len(node.children), line)
            elif node.children and all(isinstance(child, int) for child in node.children):
                node = node.children[len(node.children) - 1]
        self._skip_line()
        return node

    def _pair(self, table: Node) -> None:
        """`a.b = value`."""
        line = self._next.line
        node = table
        for part in self._key():
            node = node.child(part, line)
        if self._next.text == "=":
            self._advance()
            self._value(node, 0)

    def _key(self) -> list[str]:
        parts = []
        while self._next.kind in ("bare", "text"):
            token = self._advance()
            if len(token.text) > MAX_KEY_LENGTH:
                raise TooComplex(token.line, f"has a key of {len(token.text)} characters; {MAX_KEY_LENGTH} are allowed")
            parts.append(token.key())
            if len(parts) > MAX_KEY_PARTS:
                raise TooComplex(token.line, f"has a dotted key of more than {MAX_KEY_PARTS} parts")
            if self._next.text != ".":
                break
            self._advance()
        return parts

    def _value(self, node: Node, depth: int) -> None:
        if depth > MAX_NESTING:
            raise TooComplex(self._next.line, f"nests lists or tables more than {MAX_NESTING} deep")
        opening = self._next.text
        if opening == "[":
            self._list(node, depth + 1)
        elif opening == "{":
            self._inline_table(node, depth + 1)
        else:
            while self._next.kind in ("bare", "text") or self._next.text == ".":
                self._advance()

    def _list(self, node: Node, depth: int) -> None:
        self._advance()
        while self._next is not _END and self._next.text != "]":
            if self._next.kind in ("bare", "text") or self._next.text in ("[", "{"):
                self._value(node.child(len(node.children), self._next.line), depth)
            else:
                self._advance()
        self._advance()

    def _inline_table(self, node: Node, depth: int) -> None:
        self._advance()
        while self._next is not _END and self._next.text != "}":
            if self._next.kind not in ("bare", "text"):
                self._advance()
                continue
            inner, line = node, self._next.line
            for part in self._key():
                inner = inner.child(part, line)
            if self._next.text == "=":
                self._advance()
                self._value(inner, depth)
        self._advance()

    def _skip_line(self) -> None:
        while self._next is not _END and self._next.kind != "newline":
            self._advance()
