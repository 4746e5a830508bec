"""JSON over HTTPS, as the services around us speak it: verified, bounded, and never led elsewhere."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

_LONGEST_ANSWER: Final = 1 << 20


class NoAnswer(Exception):
    """Nobody answered, or not as agreed; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: an HTTP status, and the JSON object with it; empty where there was none."""

    status: int
    body: Mapping[str, Any]
    text: str = ""
    """All of it as it came, of whatever kind."""
    retry_after: str | None = None
    """The header of that name."""


@dataclass(frozen=True, slots=True)
class Server:
    """One HTTPS server. `url` has no path, or is that of a single document."""

    url: str
    ca_file: str = ""
    """PEM that its certificate leads to; empty: what this host trusts."""
    timeout: float = 5.0
    """Seconds, for each step of one question."""

    def ask(self, path: str = "", *, token: str = "", body: Mapping[str, Any] | None = None) -> Answer:
        """Asks once, with POST where there is a body. Blocks. Raises NoAnswer."""
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url.rstrip('/') if path else self.url}{path}", data, headers)  # noqa: S310  # checked below
        if request.type != "https":
            raise NoAnswer(f"{self.url} is not an https:// URL")
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            opener = build_opener(HTTPSHandler(context=context), _NoRedirects)
            with opener.open(request, timeout=self.timeout) as answer:
                return _answer(answer.status, answer.read(_LONGEST_ANSWER), answer.headers)
        except HTTPError as error:
            with error:
                return _answer(error.code, error.read(_LONGEST_ANSWER), error.headers)
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"{self.url} does not answer: {getattr(error, 'reason', None) or error}") from error


class _NoRedirects(HTTPRedirectHandler):
    """What we show is for one host alone."""

    def redirect_request(
        self,
        req: Request,  # noqa: ARG002
        fp: Any,  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        """Makes a redirect the error that it is here."""
        return


def _answer(status: int, data: bytes, headers: Message) -> Answer:
    return Answer(status, _object(data), data.decode(errors="replace"), headers.get("Retry-After"))


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
