# SPDX-License-Identifier: Apache-2.0
"""One connection through the fault proxy: two pipes, and how they end."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import select
import socket
import struct
from typing import Literal, Protocol

from tests.faults.http import Body, Failure, Gate, Head, How, RequestReader
from tests.faults.link import Link

_READ = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is wrong with the network; see `FaultProxy.inject`."""

    latency: float = 0.0
    bandwidth: float | None = None
    reset_after: int | None = None
    truncate_after: int | None = None
    direction: Literal["up", "down"] = "down"
    times: int | None = None
    black_hole: bool = False
    refuse: bool = False

    def __post_init__(self) -> None:
        if self.latency < 0:
            raise ValueError(f"latency is {self.latency}: it has to be 0 or more seconds")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"bandwidth is {self.bandwidth}: it has to be more than 0, or None")
        if self.reset_after is not None and self.truncate_after is not None:
            raise ValueError("reset_after and truncate_after exclude each other: set one of them")
        if self.direction not in ("up", "down"):
            raise ValueError(f"direction is {self.direction!r}: it has to be 'up' or 'down'")
        for name in ("reset_after", "truncate_after", "times"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}: it has to be 0 or more, or None")

    def cut(self) -> tuple[int, Ending] | None:
        """Return after how many bytes connections are cut, and how; None if they are not."""
        if self.times == 0:
            return None
        if self.reset_after is not None:
            return self.reset_after, Ending.RESET
        if self.truncate_after is not None:
            return self.truncate_after, Ending.CLOSE
        return None


class Ending(enum.Enum):
    """What happens when a pipe has delivered all that it has to."""

    FIN = enum.auto()  # this direction is at its end, the other one goes on
    CLOSE = enum.auto()  # both ends get a FIN, what they still send is thrown away
    DROP = enum.auto()  # both sockets are closed as they are
    RESET = enum.auto()  # both ends get an RST
    SILENCE = enum.auto()  # nothing


class Owner(Protocol):
    """What a connection asks of the proxy."""

    faults: Faults
    buffer: memoryview
    target: tuple[str, int]
    bytes_up: int
    bytes_down: int

    def watch(self, sock: socket.socket, mask: int) -> None:
        """Have events of a socket reported from now on; none for 0."""

    def request(self, head: Head) -> list[Failure]:
        """Count a request; return how it is to fail, in all the ways that were asked for."""

    def has_cut(self) -> None:
        """Note that a connection was cut."""

    def forget(self, connection: Connection) -> None:
        """Note that a connection is at its end."""


class Pipe:
    """One direction of a connection.

    :param source: where bytes come from
    :param sink: where they go
    :param link: what lies between
    """

    def __init__(self, source: socket.socket, sink: socket.socket, link: Link) -> None:
        self.source = source
        self.sink = sink
        self.link = link
        self.accepted = 0
        self.delivered = 0
        self.ending: Ending | None = None
        self.ended = False
        self.blocked = False
        self.discarding = False
        self.source_failed = False
        # When they leave the link, when they came, and the bytes.
        self._queue: collections.deque[tuple[float, float, memoryview]] = collections.deque()
        self._queued = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is on the link."""
        return not self._queue

    @property
    def wants_data(self) -> bool:
        """Whether to read from the source."""
        if self.ending is not None or self.discarding:
            return self.ending is None
        return not self._queue if self.link.instant else self._queued < self.link.capacity

    @property
    def due(self) -> float | None:
        """When there is something to deliver; None when nothing is, or the sink cannot take it."""
        return self._queue[0][0] if self._queue and not self.blocked else None

    def push(self, data: memoryview | bytes, now: float, ready: bool = True) -> None:
        """Put bytes on the link; they may be in a buffer that is used again.

        :param data: the bytes
        :param now: the time
        :param ready: whether the sink can be written to
        """
        view = memoryview(data)
        self.accepted += len(view)
        if ready and not self._queue and self.link.instant:
            view = view[self._send(view) :]
        if not view or self.ended:
            return
        kept = memoryview(bytes(view))
        self._queued += len(kept)
        step = self.link.piece
        for start in range(0, len(kept), step):
            part = kept[start : start + step]
            self._queue.append((self.link.due(now, len(part)), now, part))

    def deliver(self, now: float) -> None:
        """Send what has left the link.

        :param now: the time
        """
        self.blocked = False
        while self._queue and self._queue[0][0] <= now:
            due, arrival, data = self._queue.popleft()
            sent = self._send(data)
            if self.ended:
                return
            self._queued -= sent
            if sent < len(data):
                self._queue.appendleft((due, arrival, data[sent:]))
                return

    def _send(self, data: memoryview) -> int:
        try:
            sent = self.sink.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # The rest can reach nobody. What the other pipe still gets from there may.
            self.abandon()
            return 0
        self.blocked = sent < len(data)
        self.delivered += sent
        return sent

    def abandon(self) -> None:
        """Deliver nothing any more, and read nothing."""
        self.ending, self.ended = Ending.FIN, True
        self._queue.clear()

    def relink(self, link: Link) -> None:
        """Change the link under the bytes that are on it."""
        self.link = link
        self._queue = collections.deque(
            (link.due(arrival, len(data)), arrival, data) for _due, arrival, data in self._queue
        )


class Connection:
    """A client's connection to the proxy and the proxy's to the server.

    :param owner: the proxy
    :param client: the accepted socket
    :param now: the time
    :param http: whether to look for requests
    """

    def __init__(self, owner: Owner, client: socket.socket, now: float, http: bool) -> None:
        self._owner = owner
        self._client = client
        self._server = socket.socket()
        self._connected: bool | None = None  # None: not even tried
        self._silenced = False
        self._closed = False
        self._lingering: set[socket.socket] | None = None
        self._reader = RequestReader() if http else None
        self._draining: tuple[Failure, Head] | None = None
        self._gate: Gate | None = None
        self._damaging = False  # the next byte of a body
        for sock in (client, self._server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        latency, bandwidth = owner.faults.latency, owner.faults.bandwidth
        # The kernel has accepted at once: the first bytes take the round trip of the handshake too.
        self._up = Pipe(client, self._server, Link(latency, bandwidth, now + 2 * latency))
        self._down = Pipe(self._server, client, Link(latency, bandwidth))

    @property
    def _frozen(self) -> bool:
        return self._silenced or self._owner.faults.black_hole

    @property
    def due(self) -> float | None:
        """When the connection has something to do without an event; None for never."""
        if self._frozen or self._closed:
            return None
        up = self._up.due if self._connected else None
        down = self._down.due
        return down if up is None else up if down is None else min(up, down)

    def relink(self) -> None:
        """Take over changed faults."""
        for pipe in (self._up, self._down):
            pipe.relink(Link(self._owner.faults.latency, self._owner.faults.bandwidth))

    def handle(self, sock: socket.socket, mask: int, now: float) -> None:
        """React to an event.

        :param sock: one of the two sockets
        :param mask: what epoll says
        :param now: the time
        """
        if self._closed:
            return
        if self._frozen:
            if mask & _GONE and sock is self._client:
                self.close(reset=True)
            return
        if sock is self._server and self._connected is False:
            if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close(reset=True)
                return
            self._connected = True
        source = self._up if sock is self._client else self._down
        if mask & _READ:
            self._receive(source, now)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Deliver what is due, carry out endings, and have the right events reported.

        :param now: the time
        """
        if not self._closed and not self._frozen:
            if self._connected is None:
                self._connect()
            self._check_cut()
            self._deliver(now)
        if not self._closed:
            self._watch()

    def _connect(self) -> None:
        self._connected = False
        # Whether it succeeds, an event will tell.
        with contextlib.suppress(OSError):
            self._server.connect(self._owner.target)

    def _deliver(self, now: float) -> None:
        for pipe, ready in ((self._up, self._connected), (self._down, True)):
            if self._closed:
                return
            if not pipe.ended and ready and not pipe.empty:
                before = pipe.delivered
                pipe.deliver(now)
                self._delivered(pipe, before)
            if pipe.empty and pipe.ending is not None and not pipe.ended and not self._closed:
                self._end(pipe)
        if self._up.ended and self._down.ended and self._lingering is None and not self._closed:
            self.close()

    def _delivered(self, pipe: Pipe, before: int) -> None:
        if pipe is self._up:
            self._owner.bytes_up += pipe.delivered - before
        else:
            self._owner.bytes_down += pipe.delivered - before
        if pipe.ended:
            # The error is reported once; the reader of the other direction sees a plain end.
            self._opposite(pipe).source_failed = True

    def _opposite(self, pipe: Pipe) -> Pipe:
        return self._down if pipe is self._up else self._up

    def _end(self, pipe: Pipe) -> None:
        ending = pipe.ending
        if pipe is self._up and not self._connected and ending is Ending.FIN:
            return
        if ending is Ending.SILENCE:
            self._silenced = True
        elif ending is Ending.FIN:
            pipe.ended = True
            with contextlib.suppress(OSError):
                pipe.sink.shutdown(socket.SHUT_WR)
        elif ending is Ending.CLOSE:
            self._up.abandon()
            self._down.abandon()
            self._lingering = {self._client, self._server}
            for sock in (self._client, self._server):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
        else:
            self.close(reset=ending is Ending.RESET)

    @property
    def _cut_pipe(self) -> Pipe:
        return self._up if self._owner.faults.direction == "up" else self._down

    def _check_cut(self) -> None:
        cut = self._owner.faults.cut()
        pipe = self._cut_pipe
        if cut is not None and pipe.ending is None and pipe.accepted >= cut[0]:
            pipe.ending = cut[1]
            self._opposite(pipe).discarding = True
            self._owner.has_cut()

    def _push(self, pipe: Pipe, data: memoryview | bytes, now: float) -> None:
        cut = self._owner.faults.cut()
        if cut is not None and pipe is self._cut_pipe:
            data = memoryview(data)[: max(0, cut[0] - pipe.accepted)]
        before = pipe.delivered
        pipe.push(data, now, ready=pipe is self._down or bool(self._connected))
        self._delivered(pipe, before)

    def _receive(self, pipe: Pipe, now: float) -> None:
        lingering = self._lingering is not None
        if not lingering and not pipe.wants_data:
            return
        try:
            size = pipe.source.recv_into(self._owner.buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size, pipe.source_failed = 0, True
        if lingering:
            self._linger(pipe, size)
        elif not size:
            pipe.ending = Ending.RESET if pipe.source_failed else Ending.FIN
        elif not pipe.discarding:
            data = self._owner.buffer[:size]
            if pipe is self._down:
                self._take_answer(data, now)
            elif self._reader is None:
                self._push(pipe, data, now)
            else:
                self._take_requests(self._reader, data, now)

    def _linger(self, pipe: Pipe, size: int) -> None:
        assert self._lingering is not None
        if not size:
            self._lingering.discard(pipe.source)
            # Closing with bytes unread resets the connection: the last ones sent could be lost.
            if not self._lingering:
                self.close()

    def _take_requests(self, reader: RequestReader, data: memoryview, now: float) -> None:
        for part in reader.feed(data):
            if isinstance(part, Head):
                self._begin(part, now)
            elif self._draining is None:
                self._push(self._up, self._damaged(part), now)
            elif part.last:
                failure, head = self._draining
                self._draining = None
                self._answer(failure, head.keep_alive, Ending.CLOSE, now)
            if self._down.ending is not None or self._silenced:
                return

    def _damaged(self, part: Body) -> memoryview | bytes:
        if not self._damaging or part.framing or not part.data:
            return part.data
        self._damaging = False
        data = bytearray(part.data)
        data[0] ^= 1
        return bytes(data)

    def _begin(self, head: Head, now: float) -> None:
        failures = self._owner.request(head)
        self._damaging = any(failure.how is How.DAMAGE for failure in failures)
        failure = next((found for found in failures if found.how is not How.DAMAGE), None)
        self._gate = None
        if failure is None or failure.after is not None:
            self._gate = Gate(failure) if failure else None
            self._push(self._up, head.raw, now)
        elif failure.how is not How.ANSWER:
            self._break(failure)
        elif not head.has_body:
            self._answer(failure, head.keep_alive, Ending.CLOSE, now)
        elif not failure.drain:
            self._answer(failure, False, Ending.DROP, now)
        elif head.expects_continue:
            # Nobody knows whether the body will follow.
            self._answer(failure, False, Ending.CLOSE, now)
        else:
            self._draining = failure, head

    def _take_answer(self, data: memoryview, now: float) -> None:
        if self._gate is None:
            self._push(self._down, data, now)
            return
        passed, due = self._gate.take(data)
        self._push(self._down, passed, now)
        if due:
            failure, self._gate = self._gate.failure, None
            if failure.how is How.ANSWER:
                self._answer(failure, False, Ending.CLOSE, now)
            else:
                self._break(failure)

    def _answer(self, failure: Failure, keep_alive: bool, ending: Ending, now: float) -> None:
        self._push(self._down, failure.answer(keep_alive), now)
        if not keep_alive:
            self._down.ending = ending
            self._up.discarding = ending is Ending.CLOSE

    def _break(self, failure: Failure) -> None:
        endings = {
            How.RESET: Ending.RESET,
            How.TRUNCATE: Ending.CLOSE,
            How.SILENCE: Ending.SILENCE,
        }
        self._down.ending = endings[failure.how]
        self._up.discarding = True

    def _watch(self) -> None:
        client = server = 0
        if self._frozen:
            client = select.EPOLLRDHUP
        elif self._lingering is not None:
            client = select.EPOLLIN if self._client in self._lingering else 0
            server = select.EPOLLIN if self._server in self._lingering else 0
        else:
            client = select.EPOLLIN * self._up.wants_data
            client |= select.EPOLLOUT * self._down.blocked
            server = select.EPOLLIN * (self._down.wants_data and bool(self._connected))
            server |= select.EPOLLOUT * (self._up.blocked or self._connected is False)
        self._owner.watch(self._client, client)
        self._owner.watch(self._server, server)

    def close(self, reset: bool = False) -> None:
        """Close both sockets.

        :param reset: with an RST to both ends, throwing away what is not yet delivered
        """
        if self._closed:
            return
        self._closed = True
        for sock in (self._client, self._server):
            self._owner.watch(sock, 0)
            if reset:
                with contextlib.suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.close()
        self._owner.forget(self)

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """The client's and the server's."""
        return self._client, self._server
