"""Clients that speak real TLS to the proxy on 127.0.0.1."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_LIMIT = 10.0


@dataclass
class Connection:
    """An open TLS connection through the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def line(self) -> Any:
        """One line of JSON."""
        return json.loads(await asyncio.wait_for(self.reader.readline(), _LIMIT))

    async def echo(self, data: bytes) -> bytes:
        """What comes back for what is sent."""
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), _LIMIT)

    async def request(self, hostname: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> "Answer":
        """One HTTP/1.1 request on this connection."""
        lines = [f"POST / HTTP/1.1\r\nHost: {hostname}\r\nContent-Length: {len(body)}\r\n"]
        lines.extend(f"{name}: {value}\r\n" for name, value in headers)
        self.writer.write("".join(lines).encode() + b"\r\n" + body)
        return await asyncio.wait_for(self._answer(), _LIMIT)

    async def _answer(self) -> "Answer":
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), None)
        body = await (self.reader.read() if length is None else self.reader.readexactly(length))
        return Answer(int(head.split()[1]), body, last="connection: close" in head)

    @property
    def certificate(self) -> bytes:
        """The certificate that the server has shown, in DER."""
        shown = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown

    def close(self) -> None:
        self.writer.close()


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    last: bool = False
    """Whether the connection ends with it."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        """The values of a request header as the backend saw them."""
        return [value for key, value in self.json["headers"] if key.lower() == name]


async def connect(port: int, hostname: str, tls: ssl.SSLContext, *, preamble: bytes = b"") -> Connection:
    """A TLS connection for this hostname; `preamble` goes before the handshake. Raises OSError as the proxy refuses."""
    async with asyncio.timeout(_LIMIT):
        if not preamble:
            return Connection(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=hostname))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(preamble)
        try:
            await writer.start_tls(tls, server_hostname=hostname)
        except BaseException:
            writer.transport.abort()
            raise
    return Connection(reader, writer)


async def get(
    port: int, hostname: str, tls: ssl.SSLContext, headers: Iterable[tuple[str, str]] = (), preamble: bytes = b""
) -> Answer:
    """One request on a connection of its own."""
    connection = await connect(port, hostname, tls, preamble=preamble)
    try:
        return await connection.request(hostname, headers)
    finally:
        connection.close()


async def curl(port: int, hostname: str, ca: str, *options: str) -> tuple[str, Any]:
    """The HTTP version and the JSON that curl gets."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "10", "--cacert", "/dev/stdin", "--write-out", "\n%{http_version}"),
        *("--resolve", f"{hostname}:{port}:127.0.0.1", *options, f"https://{hostname}:{port}/"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(ca.encode())
    assert process.returncode == 0, process.returncode
    body, _, version = output.decode().rpartition("\n")
    return version, json.loads(body)


def proxy_v1(address: str, port: int) -> bytes:
    """A PROXY protocol v1 header for a client at this address."""
    return f"PROXY TCP4 {address} 127.0.0.1 {port} 443\r\n".encode()


def proxy_v2(address: str, port: int) -> bytes:
    """A PROXY protocol v2 header for a client at this address."""
    addresses = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", port, 443)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses
