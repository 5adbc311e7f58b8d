# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on loopback that makes the network between a driver and its server fail.

One thread carries all connections, so that it takes little from a machine that driver and server
run on as well. Faults are set while it runs::

    with FaultProxy("127.0.0.1", server_port, http=True) as proxy:
        for number in proxy.each_request(upload):
            proxy.fail_request(number, 503)
            upload()  # recovers
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.connection import Connection, Faults
from tests.faults.http import Failure, Head, How, Request

_BUFFER = 512 * 1024
_BACKLOG = 512
# More descriptors than select() knows: then timers are a millisecond less exact.
_SELECT_LIMIT = 1024


class FaultProxy:
    """A proxy; use it as a context manager.

    `port` on 127.0.0.1 leads to the target. All methods may be called from any thread, while
    connections are open; when they return, what they ask for is done.

    :param target_host: name or address of the server
    :param target_port: its port
    :param http: look for HTTP requests, so that they are counted and can be failed; without it any
        protocol passes, also TLS
    :param port: where to listen; 0: on a free port
    """

    def __init__(
        self, target_host: str, target_port: int, *, http: bool = False, port: int = 0
    ) -> None:
        self.target = (socket.gethostbyname(target_host), target_port)
        self.faults = Faults()
        self.buffer = memoryview(bytearray(_BUFFER))
        self.bytes_up = 0
        self.bytes_down = 0
        self.accepted = 0
        self._http = http
        self._wanted_port = port
        self._requests: list[Request] = []
        self._failures: list[Failure] = []
        self._connections: set[Connection] = set()
        self._watched: dict[int, tuple[Connection | None, socket.socket, int]] = {}
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], concurrent.futures.Future[Any]]]
        self._orders = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._owner_of: dict[socket.socket, Connection] = {}

    def __enter__(self) -> FaultProxy:  # noqa: PYI034 - Self needs Python 3.11
        # Bound, and never listening: while connections are refused nobody else gets the port.
        self._reserved = _bound(self._wanted_port)
        self.port: int = self._reserved.getsockname()[1]
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._listener: socket.socket | None = None
        self._listen()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._order(self._stop)
        assert self._thread is not None
        self._thread.join()
        self._thread = None
        os.close(self._wake)

    def _stop(self) -> None:
        self._stopping = True

    @property
    def address(self) -> str:
        """Host and port, with a colon between them."""
        return f"127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """The requests since `clear`, in the order in which their heads came."""
        return list(self._requests)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def inject(self, **changes: Any) -> None:
        """Change what is wrong with the network; what is not named stays as it is.

        Connections in both states see the change: those that are open, and those to come.

        :param latency: seconds, one way: a round trip takes twice as long. The round trip of the
            handshake is added to the first bytes of a connection, since the kernel accepts at once
        :param bandwidth: bytes in a second, for each direction of each connection; None: no limit
        :param reset_after: reset connections (RST to both ends) after so many bytes; what the
            receiver has not taken by then may be lost; None: never
        :param truncate_after: end connections in order (FIN to both ends) after exactly so many
            bytes; None: never
        :param direction: which bytes are counted for those two: ``up`` (to the server) or ``down``;
            from the beginning of the connection
        :param times: how many connections are cut by them; None: all
        :param black_hole: accept, then silence: nothing is read, nothing passes. A client that
            gives up ends its connection to the server as well. Bytes that were on the way arrive
            when it is over
        :param refuse: refuse new connections; the open ones go on
        """

        def change() -> None:
            before, self.faults = self.faults, dataclasses.replace(self.faults, **changes)
            self._apply(before)

        self._order(change)

    def clear(self) -> None:
        """Repair everything, and forget the requests so far: the next one is number 1."""

        def change() -> None:
            before, self.faults = self.faults, Faults()
            self._failures.clear()
            self._requests.clear()
            self._apply(before)

        self._order(change)

    def fail_request(
        self,
        number: int,
        status: int = 503,
        *,
        how: How = How.ANSWER,
        times: int | None = 1,
        after: int | None = None,
        drain: bool = True,
        everything: bool = False,
    ) -> None:
        """Let an HTTP request fail that is still to come.

        Of several ways the first one counts; ``How.DAMAGE`` happens besides another one.

        :param number: of the request, 1 is the first one since `clear`
        :param status: of the answer that the client gets, for ``How.ANSWER``
        :param how: in which way it fails; see `How`
        :param times: how often: more than 1 also fails its repetitions, which are the later
            requests with the same method and target; None: all of them
        :param after: None: the server never sees the request. 0: the server carries it out, and
            the client gets none of its answer. More (not for ``How.ANSWER``): the client gets so
            many bytes of it, the head included; an answer that is shorter comes in full
        :param drain: read the body of the request before an answer, and keep the connection if the
            client asked for that. False: answer at once and close the connection, so that the
            client fails to send the rest, and perhaps never sees the answer
        :param everything: all requests from this one on fail, `times` of them
        :raises ValueError: the combination makes no sense, or this proxy does not look for requests
        """
        if not self._http:
            raise ValueError("this proxy carries bytes: make it with http=True to fail requests")
        if number < 1 or (times is not None and times < 1):
            raise ValueError("number and times count from 1")
        if after is not None and (after < 0 or (after and how is How.ANSWER)):
            raise ValueError("after has to be None or 0 for an answer, else at least 0")
        if after is not None and how is How.DAMAGE:
            raise ValueError("damaged data does not end an answer: ask for that by a second call")
        failure = Failure(number, how, status, times, after, drain, everything)
        self._order(lambda: self._failures.append(failure))

    def each_request(self, operation: Callable[[], object]) -> Iterator[int]:
        """Run an operation to count its requests, then yield the number of each of them.

        Before each number the proxy is cleared, so that a caller has only to set one fault and to
        run the operation again; and once more at the end.

        :param operation: sends requests through this proxy, and can be run again and again
        """
        self.clear()
        operation()
        count = len(self._requests)
        assert count, "the operation sent no request through the proxy"
        for number in range(1, count + 1):
            self.clear()
            yield number
        self.clear()

    # What connections ask for, in the thread of the proxy.

    def watch(self, sock: socket.socket, mask: int) -> None:
        """Have events of a socket reported from now on; none for 0."""
        fd = sock.fileno()
        known = self._watched.get(fd)
        if mask == (known[2] if known else 0):
            return
        if not mask:
            del self._watched[fd]
            self._epoll.unregister(fd)
            return
        self._watched[fd] = (self._owner_of.get(sock), sock, mask)
        if known:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)

    def request(self, head: Head) -> list[Failure]:
        """Count a request; return how it is to fail, in all the ways that were asked for."""
        request = Request(len(self._requests) + 1, head.method, head.target)
        self._requests.append(request)
        return [failure for failure in self._failures if failure.hits(request)]

    def has_cut(self) -> None:
        """Note that a connection was cut."""
        times = self.faults.times
        if times is not None:
            self.faults = dataclasses.replace(self.faults, times=times - 1)

    def forget(self, connection: Connection) -> None:
        """Note that a connection is at its end."""
        self._connections.discard(connection)
        for sock in connection.sockets:
            self._owner_of.pop(sock, None)

    # The thread.

    def _order(self, action: Callable[[], Any]) -> None:
        """Have something done in the thread of the proxy, and wait for it."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                raise RuntimeError("the proxy does not run: use it as a context manager")
            self._orders.put((action, done))
            os.eventfd_write(self._wake, 1)
        while True:
            try:
                done.result(1)
                return
            except concurrent.futures.TimeoutError:
                if not self._thread.is_alive():
                    raise RuntimeError("the thread of the proxy has failed") from None

    def _obey(self) -> None:
        os.eventfd_read(self._wake)
        while not self._orders.empty():
            action, done = self._orders.get()
            try:
                done.set_result(action())
            except (TypeError, ValueError, OSError) as exc:
                done.set_exception(exc)

    def _apply(self, before: Faults) -> None:
        now = time.monotonic()
        if self.faults.refuse != before.refuse:
            if self.faults.refuse:
                self._refuse()
            else:
                self._listen()
        latency, bandwidth = self.faults.latency, self.faults.bandwidth
        changed = (before.latency, before.bandwidth) != (latency, bandwidth)
        for connection in list(self._connections):
            if changed:
                connection.relink()
            connection.advance(now)

    def _listen(self) -> None:
        self._listener = _bound(self.port)
        self._listener.listen(_BACKLOG)
        self.watch(self._listener, select.EPOLLIN)

    def _refuse(self) -> None:
        if self._listener is not None:
            self.watch(self._listener, 0)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _address = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        now = time.monotonic()
        self.accepted += 1
        connection = Connection(self, client, now, self._http)
        self._connections.add(connection)
        for sock in connection.sockets:
            self._owner_of[sock] = connection
        connection.advance(now)

    def _wait(self) -> list[tuple[int, int]]:
        """Return events, or nothing when something on a link is due."""
        due = None
        if self.faults.latency or self.faults.bandwidth:
            times = [connection.due for connection in self._connections]
            due = min((moment for moment in times if moment is not None), default=None)
        if due is None:
            return self._epoll.poll()
        timeout = max(0.0, due - time.monotonic())
        if timeout and self._epoll.fileno() < _SELECT_LIMIT:
            # The waiting of epoll itself counts milliseconds, and rounds up.
            select.select([self._epoll], [], [], timeout)
            timeout = 0.0
        return self._epoll.poll(timeout)

    def _run(self) -> None:
        try:
            while not self._stopping:
                events = self._wait()
                for fd, mask in events:
                    self._handle(fd, mask)
                if self.faults.latency or self.faults.bandwidth:
                    self._deliver()
        finally:
            for connection in list(self._connections):
                connection.close(reset=True)
            self._refuse()
            self._reserved.close()
            self._epoll.close()

    def _handle(self, fd: int, mask: int) -> None:
        if fd == self._wake:
            self._obey()
            return
        # An event before this one may have closed it.
        connection, sock, _mask = self._watched.get(fd, (None, None, 0))
        if sock is None:
            return
        if connection is None:
            self._accept()
        else:
            connection.handle(sock, mask, time.monotonic())

    def _deliver(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            due = connection.due
            if due is not None and due <= now:
                connection.advance(now)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    try:
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock
