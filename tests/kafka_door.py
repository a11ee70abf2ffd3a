"""A door in front of a broker that changes or keeps back the broker's answers to questions for offsets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LIST_OFFSETS = (2).to_bytes(2, "big")
"""Kafka's key of the request, which stands after its length."""
Answer = Callable[[bytes], bytes | None]
"""What reaches the client of an answer (with its length); None: nothing, from now on."""


@contextmanager
def door(broker: int, change: Answer = lambda _answer: None) -> Iterator[tuple[str, list[int]]]:
    """A way to the broker at the port, whose metadata lead back here, and how often an answer was changed.

    On a connection that has asked for offsets each further answer goes through `change`.
    """
    entry, changed = socket.create_server(("127.0.0.1", 0)), list[int]()
    port = entry.getsockname()[1]

    def ask(client: socket.socket, server: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            for request in _messages(client):
                if request[4:6] == LIST_OFFSETS:
                    asked.set()
                server.sendall(request)

    def answer(server: socket.socket, client: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            # Whole ones only: a port that two pieces share would lead past this door.
            for message in _messages(server):
                led_here = message.replace(broker.to_bytes(4, "big"), port.to_bytes(4, "big"))
                given = change(led_here) if asked.is_set() else led_here
                if given != led_here:
                    changed.append(len(message))
                if given is not None:
                    client.sendall(given)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, server = entry.accept()[0], socket.create_connection(("127.0.0.1", broker))
                opened.extend([client, server])
                asked = threading.Event()
                threading.Thread(target=ask, args=(client, server, asked), daemon=True).start()
                threading.Thread(target=answer, args=(server, client, asked), daemon=True).start()

    opened = [entry]
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{port}", changed
    finally:
        for one in opened:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def with_error(code: int, topic: str, partition: int) -> Answer:
    """Puts an error in the place of the partition's offset, as a broker does that is not its leader any more."""
    place = partition.to_bytes(4, "big")

    def change(answer: bytes) -> bytes:
        # After the number of the partition: no error, and no timestamp.
        rest = answer.partition(topic.encode())[2]
        _, found, after = rest.partition(place + bytes(2) + b"\xff" * 8)
        if not found:
            return answer
        return answer[: len(answer) - len(after) - 10] + code.to_bytes(2, "big") + b"\xff" * 8 + after

    return change


def _messages(sender: socket.socket) -> Iterator[bytes]:
    """The messages of a connection, each with its length before it; several may come at once, or one in pieces."""
    received = b""
    while data := sender.recv(65_536):
        received += data
        while len(received) >= (end := 4 + int.from_bytes(received[:4], "big")) > 4:
            yield received[:end]
            received = received[end:]
