"""A TCP proxy that can be slow, cut its connections, reset them, or swallow what the server answers."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_CHUNK = 65_536
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter

    def close(self, *, reset: bool) -> None:
        for writer in (self.client, self.server):
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                writer.transport.abort()
            else:
                writer.close()


@dataclass
class Proxy:
    """Passes connections to `port` on to `target`, in a thread of its own.

    `latency` (seconds) delays what the server answers; with `swallow` it is thrown away.
    """

    port: int
    target: int
    latency: float = 0.0
    swallow: bool = False
    swallowed: int = 0
    """Bytes of answers that were thrown away."""
    passed: int = 0
    """Bytes that went through, both ways."""
    _connections: set[_Connection] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut(reset=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)

    def cut(self, *, reset: bool = False) -> int:
        """End all connections, politely or by a reset; return how many there were."""
        ended: list[int] = []
        done = threading.Event()

        def end() -> None:
            ended.append(len(self._connections))
            for connection in self._connections:
                connection.close(reset=reset)
            done.set()

        self._loop.call_soon_threadsafe(end)
        assert done.wait(10)
        return ended[0]

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, self.port))
        ready.set()
        self._loop.run_forever()
        server.close()
        if serving := asyncio.all_tasks(self._loop):
            # Their connections are cut: they end by themselves.
            self._loop.run_until_complete(asyncio.wait(serving, timeout=10))
        self._loop.close()

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self.target)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(to_client, to_server)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(from_client, to_server, lambda: 0.0))
                both.create_task(self._pump(from_server, to_client, lambda: self.latency, answers=True))
        finally:
            self._connections.discard(connection)
            connection.close(reset=False)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: Callable[[], float], *, answers: bool = False
    ) -> None:
        """Pass on until the source ends; what is delayed does not hold up what comes after it for longer."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writer = asyncio.create_task(self._write(waiting, sink))
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                if answers and self.swallow:
                    self.swallowed += len(data)
                    continue
                self.passed += len(data)
                waiting.put_nowait((self._loop.time() + delay(), data))
        waiting.put_nowait((0.0, b""))
        await writer

    async def _write(self, waiting: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while (item := await waiting.get())[1]:
                await asyncio.sleep(max(0.0, item[0] - self._loop.time()))
                sink.write(item[1])
                await sink.drain()
        # One side has ended: so does the other.
        sink.close()
