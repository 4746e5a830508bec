"""Tables on a terminal: drawn without rich where each row fits its line, and looking as rich would draw them."""

import re

from rich.console import Console

from cli.output import Table

TABLE = Table(
    ("SERVICE", "READY", "REASON"),
    (("hello", "yes", ""), ("a-longer-name", "no", "Pending: waits\x1b[2J for\nits certificate"), ("x", "running", "")),
)


def by_rich(width: int) -> str:
    console = Console(width=width, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(TABLE.rich())
    return shown.get()


def lines(drawn: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in drawn.splitlines()]


def test_what_fits_looks_as_rich_draws_it():
    one_line = Table(TABLE.headers, tuple(tuple(" ".join(cell.split()) for cell in row) for row in TABLE.rows[::2]))
    styled = one_line.styled(80, colours=True)
    assert styled is not None
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(one_line.rich())
    assert lines(styled) == lines(shown.get())
    assert "\x1b[32myes\x1b[0m" in styled
    assert "\x1b[1m" in styled.splitlines()[0]


def test_nothing_that_comes_from_outside_steers_the_terminal():
    ascii_only = Table(TABLE.headers, (("hello", "yes", "a\nb"),))
    assert ascii_only.styled(80, colours=False) == "SERVICE  READY  REASON\nhello    yes    a b"
    assert TABLE.styled(80, colours=True) is None, "the replacement character is not ASCII: rich knows its width"


def test_what_does_not_fit_or_is_wider_than_it_looks_is_left_to_rich():
    assert Table(("A",), (("x" * 79,),)).styled(79, colours=False) is None
    assert Table(("A",), (("日本",),)).styled(79, colours=False) is None
    assert by_rich(30).count("\n") > len(TABLE.rows) + 1
