"""Real backends, each of which tells in its answer who it is and what it was sent."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions

_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]
_GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, h2.exceptions.ProtocolError)


@asynccontextmanager
async def _listening(handle: _Handler, *, port: int, tls: ssl.SSLContext | None, proxied: bool) -> AsyncIterator[int]:
    """Serves on a port of 127.0.0.1 (0: any) and gives its number. `proxied`: each connection begins with PROXY v2."""
    loop = asyncio.get_running_loop()
    connections: set[asyncio.Task[None]] = set()

    async def serve(connection: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            # Read from the socket itself, so that what follows the header is left to TLS.
            seen: dict[str, Any] = {"client": await _proxy_header(connection)} if proxied else {}
            reader = asyncio.StreamReader()
            transport, protocol = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), connection, ssl=tls
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            if tls is not None and (alpn := transport.get_extra_info("ssl_object").selected_alpn_protocol()):
                seen["alpn"] = alpn
            await handle(reader, writer, seen)
        except _GONE:
            pass
        finally:
            if writer is not None:
                writer.close()
            connection.close()

    async def accept(listener: socket.socket) -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = loop.create_task(serve(connection))
            connections.add(task)
            task.add_done_callback(connections.discard)

    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        accepting = loop.create_task(accept(listener))
        try:
            yield listener.getsockname()[1]
        finally:
            for task in (accepting, *connections):
                task.cancel()
            await asyncio.gather(accepting, *connections, return_exceptions=True)


async def _proxy_header(connection: socket.socket) -> str:
    """Reads a PROXY v2 header: the client's "address:port", or "local"."""
    connection.setblocking(False)
    head = await _exactly(connection, 16)
    assert head[:12] == b"\r\n\r\n\0\r\nQUIT\n", head
    body = await _exactly(connection, struct.unpack("!H", head[14:])[0])
    if head[12] & 0xF == 0:
        return "local"
    assert head[13] == 0x11, head
    return f"{'.'.join(map(str, body[:4]))}:{struct.unpack('!H', body[8:10])[0]}"


async def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(connection, size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


async def _speak_http1(
    name: str, start: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: dict[str, Any]
) -> None:
    while True:
        head, start = start + await reader.readuntil(b"\r\n\r\n"), b""
        request, *lines = head.decode().split("\r\n")
        if not request.endswith("HTTP/1.1"):
            writer.write(b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        headers = [tuple(line.split(": ", 1)) for line in lines if line]
        if ("upgrade", "websocket") in [(key.lower(), value) for key, value in headers]:
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            )
            while data := await reader.read(1024):
                writer.write(data)
            return
        lengths = [int(value) for key, value in headers if key.lower() == "content-length"]
        body = await reader.readexactly(lengths[0] if lengths else 0)
        answer = {"backend": name, "protocol": "http/1.1", "headers": headers, "received": len(body), **seen}
        content = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)


async def _speak_http2(
    name: str, start: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: dict[str, Any]
) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    connection.receive_data(start)
    writer.write(connection.data_to_send())
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                content = json.dumps({"backend": name, "protocol": "h2", "headers": event.headers, **seen}).encode()
                fields = [(":status", "200"), ("content-length", str(len(content)))]
                connection.send_headers(event.stream_id, fields)
                connection.send_data(event.stream_id, content, end_stream=True)
        writer.write(connection.data_to_send())


@asynccontextmanager
async def http1(
    name: str, *, port: int = 0, tls: ssl.SSLContext | None = None, proxied: bool = False
) -> AsyncIterator[int]:
    """An HTTP/1.1 server: answers with JSON, upgrades to an echoing WebSocket when asked to."""
    async with _listening(partial(_speak_http1, name, b""), port=port, tls=tls, proxied=proxied) as bound:
        yield bound


@asynccontextmanager
async def http2(
    name: str, *, port: int = 0, tls: ssl.SSLContext | None = None, proxied: bool = False
) -> AsyncIterator[int]:
    """An HTTP/2 server, in clear (prior knowledge) without `tls`: answers with JSON."""
    async with _listening(partial(_speak_http2, name, b""), port=port, tls=tls, proxied=proxied) as bound:
        yield bound


@asynccontextmanager
async def http_both(name: str, *, port: int = 0) -> AsyncIterator[int]:
    """A server in clear that speaks whichever version it is spoken to in."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: dict[str, Any]) -> None:
        start = await reader.readexactly(4)
        await (_speak_http2 if start == b"PRI " else _speak_http1)(name, start, reader, writer, seen)

    async with _listening(handle, port=port, tls=None, proxied=False) as bound:
        yield bound


@asynccontextmanager
async def tls_echo(name: str, tls: ssl.SSLContext, *, port: int = 0, proxied: bool = False) -> AsyncIterator[int]:
    """Terminates TLS itself, greets with one line of JSON and echoes what follows."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: dict[str, Any]) -> None:
        writer.write(json.dumps({"backend": name, **seen}).encode() + b"\n")
        while data := await reader.read(1024):
            writer.write(data)

    async with _listening(handle, port=port, tls=tls, proxied=proxied) as bound:
        yield bound


@asynccontextmanager
async def grpc_echo(*, name: str = "echo", port: int = 0) -> AsyncIterator[int]:
    """A gRPC server without TLS: /test.Echo/Say echoes with a trailer or fails, /test.Echo/Chat echoes a stream.

    Its name is in the initial metadata of both, as `backend`.
    """

    async def say(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.send_initial_metadata((("backend", name),))
        context.set_trailing_metadata((("seen", "yes"),))
        if request == b"fail":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
        return request

    async def chat(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("backend", name),))
        async for request in requests:
            yield request

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "test.Echo",
                {
                    "Say": grpc.unary_unary_rpc_method_handler(say),
                    "Chat": grpc.stream_stream_rpc_method_handler(chat),
                },
            ),
        )
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, None)
        yield bound
