"""What the machine allows: the same bytes from files to files over a socket, or back and forth, without any protocol.

``bare.py receive PORT FOLDER`` serves until it is killed; ``bare.py send PORT FOLDER`` sends all files below a folder;
``bare.py echo PORT COUNT [REPORT]`` exchanges 80 bytes so often, and writes the latencies into a file of its own.
An object has eight bytes before it that say how long it is, and the only acknowledgement is the end of the connection.
"""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

MESSAGE = 80
"""Bytes of an exchange, each way: a C-ECHO-RQ in its P-DATA-TF has as many, and its response ten more."""

_CHUNK = 1 << 20
_TOGETHER = 1 << 18
"""Files up to this size leave in one system call with what precedes them."""
_ECHO = (1 << 64) - 1
"""In place of a length: exchanges follow."""


def send(port: int, folder: Path) -> None:
    """Send all files below a folder; the receiver has written them when this returns."""
    with _connected(port) as connection:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                head = size.to_bytes(8, "big")
                if size <= _TOGETHER:
                    connection.sendall(head + file.read())
                else:
                    connection.sendall(head)
                    connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def echo(port: int, count: int, timed: Callable[[Callable[[], object]], object]) -> None:
    """Exchange a message so often, each by a call that is handed to ``timed``."""
    message, buffer = bytes(MESSAGE), bytearray(MESSAGE)
    with _connected(port) as connection:
        connection.sendall(_ECHO.to_bytes(8, "big"))

        def exchange() -> None:
            connection.sendall(message)
            _fill(connection, buffer)

        for _ in range(count):
            timed(exchange)


def receive(port: int, folder: Path) -> None:
    """Take one connection after another, for ever."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _take(connection, folder)


def _take(connection: socket.socket, folder: Path) -> None:
    head, number, view = bytearray(8), 0, memoryview(bytearray(_CHUNK))
    while _fill(connection, head):
        size = int.from_bytes(head, "big")
        if size == _ECHO:
            _answer(connection)
            return
        with (folder / f"{number:05}.dcm").open("wb", buffering=0) as file:
            while size:
                got = connection.recv_into(view[: min(size, _CHUNK)])
                if not got:
                    raise EOFError("the connection ended within an object")
                file.write(view[:got])
                size -= got
        number += 1


def _answer(connection: socket.socket) -> None:
    buffer = bytearray(MESSAGE)
    while _fill(connection, buffer):
        connection.sendall(buffer)


def _fill(connection: socket.socket, buffer: bytearray) -> bool:
    """Receive as many bytes as the buffer has; False if the connection ended before."""
    view = memoryview(buffer)
    while view:
        got = connection.recv_into(view)
        if not got:
            return False
        view = view[got:]
    return True


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def main(task: str, port: str, what: str, report: str | None = None) -> None:
    """Do one of the three."""
    if task == "receive":
        receive(int(port), Path(what))
    elif task == "send":
        send(int(port), Path(what))
    elif report is None:
        echo(int(port), int(what), lambda exchange: exchange())
    else:
        from latencies import Latencies

        latencies = Latencies()
        echo(int(port), int(what), latencies.time)
        latencies.write(report)


if __name__ == "__main__":
    main(*sys.argv[1:])
