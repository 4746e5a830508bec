"""What goes wrong is logged with its trace, and without the secrets that were at hand."""

import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from api.spec import ServiceSpec
from controller.logs import configure
configure("info", {form!r})
def breaks(password, spec):
    ServiceSpec.model_validate(spec)
try:
    breaks("battery" + "-staple", {{"name": "Shop", "components": [{{"env": ["correct" + "-horse"]}}]}})
except Exception as error:
    structlog.get_logger("api").error("call_failed", exc_info=error)
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_trace_tells_where_and_not_with_what(form: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)], capture_output=True, text=True, check=True
    ).stderr
    assert "call_failed" in told
    assert "breaks" in told
    assert "ValidationError" in told
    for secret in ("battery-staple", "correct-horse"):
        assert secret not in told
