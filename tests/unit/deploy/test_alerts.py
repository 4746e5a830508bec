"""What the documentation offers to tell somebody with does so, over real HTTP."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import get_args

import pytest

from api.timeline import NodeEvent
from controller.alerts.command import Attempt, Command, Outcome
from controller.alerts.discretion import AlertKind
from controller.settings import AlertSettings, Settings
from tests.unit.controller.registry.samples import NOON

NTFY = str(Path("deploy/alerts/mcp-ntfy").absolute())
PAGE = Path("docs/alerts.md").read_text()
EVENT = NodeEvent(
    node="rift", id=7, at=NOON, service="shop", generation=3, actor="containers", kind="failed", message="für ④: no 'x'"
)


class Topic(HTTPServer):
    """Remembers what it is told."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[tuple[Message, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mcp"


class _Handler(BaseHTTPRequestHandler):
    server: Topic

    def do_POST(self) -> None:
        self.server.told.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Topic]:
    with Topic() as topic:
        thread = Thread(target=topic.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield topic
        topic.shutdown()
        thread.join()


@pytest.fixture
def topic() -> Iterator[Topic]:
    with serving() as topic:
        yield topic


async def tell(*words: str) -> Attempt:
    return await Command(words, 20.0).tell(EVENT)


async def test_ntfy_is_told_in_words(topic: Topic, tmp_path: Path) -> None:
    header = tmp_path / "header"
    header.write_text("Authorization: Bearer tk_1\n")
    for words in ((NTFY, topic.url), (NTFY, topic.url, str(header))):
        assert (await tell(*words)).outcome is Outcome.TOLD
    (plain, body), (authorized, _) = topic.told
    assert (plain["Title"], plain["Tags"]) == ("shop on rift: failed", "warning")
    assert body.decode() == "für ④: no 'x'\n"
    assert (plain["Authorization"], authorized["Authorization"]) == (None, "Bearer tk_1")
    topic.status = 403
    assert (await tell(NTFY, topic.url)).detail == "ended with status 22"


async def test_a_webhook_gets_the_event_itself(topic: Topic) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (_, words) = (load(block).alerts.command for block in blocks)
    assert (await tell(*words[:-1], topic.url)).outcome is Outcome.TOLD
    ((headers, body),) = topic.told
    assert headers["Content-Type"] == "application/json"
    assert NodeEvent.model_validate_json(body) == EVENT


def load(block: str) -> Settings:
    return Settings.model_validate(tomllib.loads(block))


def test_the_page_tells_of_each_setting_and_kind() -> None:
    names = {*AlertSettings.model_fields, *get_args(AlertKind)}
    assert {name for name in names if not re.search(rf"`{name}`|^{name} =", PAGE, re.MULTILINE)} == set()
