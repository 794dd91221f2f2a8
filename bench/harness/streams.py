"""Many streams that are open at once: a provider that goes on when it is told to, and clients that read."""

import asyncio
import resource
from dataclasses import dataclass, field
from pathlib import Path

from harness import ai
from harness.process import Process

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
AT_ONCE = 100
PATIENCE = 120.0


@dataclass(frozen=True)
class Held:
    """What the server's memory was, in bytes."""

    streams: int
    before: int
    during: int


@dataclass
class Provider:
    """Sends one event to whoever asks, and the next ones to all when it is told to."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        await reader.readexactly(length)
        writer.write(HEAD + _chunk(ai.EVENT))
        self.writers.append(writer)

    async def say_more(self) -> None:
        for writer in self.writers:
            writer.write(_chunk(ai.EVENT))
            await writer.drain()

    def end(self) -> None:
        for writer in self.writers:
            writer.close()


def most() -> int:
    """How many streams the limit on open files allows: each takes two sockets of the server, and two of ours."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (hard - 200) // 2


def hold(server: Process, port: int, provider_port: int, streams: int) -> Held:
    """Opens that many streams through the server, reads from each twice, and tells what memory they took."""
    return asyncio.run(asyncio.wait_for(_hold(server, port, provider_port, streams), PATIENCE))


async def _hold(server: Process, port: int, provider_port: int, streams: int) -> Held:
    provider = Provider()
    listening = await asyncio.start_server(provider.answer, "127.0.0.1", provider_port, backlog=4096)
    before = resident(server.pid)
    clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for start in range(0, streams, AT_ONCE):
        clients += await asyncio.gather(*(_open(port) for _ in range(start, min(start + AT_ONCE, streams))))
    await provider.say_more()
    await asyncio.gather(*(reader.readuntil(b"\n\n") for reader, _ in clients))
    during = resident(server.pid)
    for _, writer in clients:
        writer.close()
    provider.end()
    listening.close()
    return Held(len(clients), before, during)


async def _open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client whose stream has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    call, body = ai.HELD, ai.prompt(stream=True).encode()
    fields = "".join(f"{name}: {value}\r\n" for name, value in call.header_fields(0).items())
    writer.write(
        f"POST {call.path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n{fields}\r\n".encode() + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.decode(errors="replace"))
    await reader.readuntil(b"\n\n")
    return reader, writer


def _chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


def resident(pid: int) -> int:
    """Bytes of memory that the process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/status has no VmRSS")
