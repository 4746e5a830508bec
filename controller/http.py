"""/metrics, /healthz and /readyz over HTTP, in threads of their own: a busy loop still answers."""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from api.errors import Refused

Probe = Callable[[], str | None]
"""Says what is wrong, in one sentence; None: nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """A scrape is not worth a line."""


class HttpServer:
    """Serves until the context ends. Raises Refused where the address cannot be had."""

    def __init__(self, listen: str, metrics: WSGIApplication, ready: Probe) -> None:
        host, _, port = listen.rpartition(":")
        app = _App(metrics, ready)
        try:
            self._server = make_server(host.strip("[]"), int(port), app, _Server, _QuietHandler)
        except OSError as error:
            raise Refused(
                f"metrics.listen: {listen} cannot be listened on ({error.strerror}): choose another port"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _App:
    def __init__(self, metrics: WSGIApplication, ready: Probe) -> None:
        self._metrics = metrics
        self._ready = ready

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                return self._metrics(environ, start_response)
            case "/healthz":
                return _text(start_response, "200 OK", "ok")
            case "/readyz":
                problem = self._ready()
                return _text(start_response, "503 Service Unavailable" if problem else "200 OK", problem or "ok")
            case _:
                return _text(start_response, "404 Not Found", "there are /metrics, /healthz and /readyz")


def _text(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
