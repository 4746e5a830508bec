"""The clients of a load: HTTP/1.1 on connections that are kept, and HTTP/2 that lets a server take its leave."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions

_FRAME_HEAD = 9
_GOAWAY = 7

Connect = Callable[[str], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Makes a connection on which that protocol is spoken. Raises OSError."""


class Http1:
    """Keeps its connection until it is told that it ends, or it breaks."""

    def __init__(self, connect: Connect, hostname: str) -> None:
        self._connect = connect
        self._request = f"GET /who.json HTTP/1.1\r\nHost: {hostname}\r\n\r\n".encode()
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> str:
        self._open = self._open or await self._connect("http/1.1")
        reader, writer = self._open
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
            body = await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        if "connection: close" in head:
            self.close()
        return _version(head.split()[1], body)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


class Http2:
    """Any number of requests at once; a connection that the server leaves ends what it has, and has an heir."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._current: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._left: list[_Connection] = []

    async def ask(self, hostname: str) -> str:
        while True:
            async with self._connecting:
                if self._current is None or self._current.leaves:
                    self._current = _Connection(*await self._connect("h2"))
                    self._left.append(self._current)
            with suppress(_NotTaken):
                return await self._current.ask(hostname)

    async def close(self) -> None:
        for connection in self._left:
            await connection.close()


class _NotTaken(Exception):
    """The server said that it did nothing of this request: RFC 9113, section 6.8."""


class _Connection:
    """One HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.leaves = False
        self._reader, self._writer = reader, writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._answers: dict[int, tuple[list[str], bytearray, asyncio.Future[tuple[str, bytes]]]] = {}
        self._h2.initiate_connection()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    async def ask(self, hostname: str) -> str:
        stream = self._h2.get_next_available_stream_id()
        answer: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        self._answers[stream] = [], bytearray(), answer
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", hostname), (":path", "/who.json")]
        self._h2.send_headers(stream, fields, end_stream=True)
        self._flush()
        return _version(*await answer)

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _read(self) -> None:
        error: Exception = ConnectionError("the connection ended")
        try:
            while True:
                await self._frame()
        except (OSError, EOFError, h2.exceptions.ProtocolError) as cause:
            error = ConnectionError(repr(cause))
        self.leaves = True
        self._fail(list(self._answers), error)

    async def _frame(self) -> None:
        head = await self._reader.readexactly(_FRAME_HEAD)
        content = await self._reader.readexactly(int.from_bytes(head[:3]))
        if head[3] == _GOAWAY:
            # h2 would take it for the end of all streams, although those up to the last that is named are answered.
            self.leaves = True
            last, code = struct.unpack(">II", content[:8])
            undone = [stream for stream in self._answers if stream > last]
            self._fail(undone, _NotTaken() if code == 0 else ConnectionError(f"GOAWAY {code}"))
            return
        for event in self._h2.receive_data(head + content):
            self._take(event)
        self._flush()

    def _fail(self, streams: Iterable[int], error: Exception) -> None:
        for stream in streams:
            answer = self._answers.pop(stream)[2]
            if not answer.done():
                answer.set_exception(error)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                self._answers[event.stream_id][0].append(_status(event.headers or ()))
            case h2.events.DataReceived():
                self._answers[event.stream_id][1].extend(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset() if event.stream_id in self._answers:
                self._fail([event.stream_id], ConnectionError(f"reset: {event.error_code}"))
            case h2.events.StreamEnded():
                status, content, answer = self._answers.pop(event.stream_id)
                if not answer.done():
                    answer.set_result((status[0], bytes(content)))


def _status(headers: Iterable[tuple[str | bytes, str | bytes]]) -> str:
    return next(str(value) for name, value in headers if name == ":status")


def _version(status: str, body: bytes) -> str:
    if status != "200":
        raise ConnectionError(f"answered {status}")
    return body.decode().split('"')[3]
