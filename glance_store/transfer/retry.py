# SPDX-License-Identifier: Apache-2.0
"""Retries after temporary failures of a backend: the one retry loop of all drivers.

The limit is in seconds and not in attempts, because a restarting proxy takes the same time whatever
the request. Closing a transfer also ends its pauses.
"""

from __future__ import annotations

import datetime
import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader, Stream, StreamingReader
from glance_store.transfer.memory import Memory

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Permanent 5xx statuses: not implemented, HTTP version not supported, insufficient storage, loop
# detected, not extended, network authentication required.
_PERMANENT = frozenset({501, 505, 506, 507, 508, 510, 511})
# HTTP statuses worth a retry: request timeout, too early, too many requests, server errors, and
# (499, 520 and above) a proxy that cannot reach the server behind it.
PASSING = frozenset({408, 425, 429, 499, *range(500, 600)}) - _PERMANENT

_FIRST_PAUSE = 0.2
_FIRST_LOOK = 0.1
_LONGEST_PAUSE = 5.0
# Random factor, so that transfers that fail together do not retry at the same moment.
_SPREAD = (0.8, 1.2)


def looks(seconds: float) -> Iterator[None]:
    """Yield at once, and then after growing pauses, to look whether a state has been reached.

    :param seconds: until the last look
    """
    pause, deadline = _FIRST_LOOK, time.monotonic() + seconds
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(1.6 * pause, _LONGEST_PAUSE)
        yield


class Patience:
    """How long one transfer keeps retrying after temporary failures.

    :param seconds: from the first failure of a request until its last attempt begins; 0 for no
        retries
    :param in_all: whether all requests share the seconds, as for clean-up
    :param most: maximum retries of a request, if an operator set one; None for no limit
    """

    def __init__(self, seconds: float, in_all: bool = False, most: int | None = None) -> None:
        self.seconds = seconds
        self.most = most
        self._shared = _Account() if in_all else None
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether the transfer is over."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Stop retrying, and end pauses at once. May be called from any thread."""
        self._stop.set()

    def tries(self, more: float = 0.0) -> Tries:
        """Return the attempts of a new request.

        :param more: additional seconds, such as for work in proportion to the request's size
        """
        account = self._shared or _Account()
        return Tries(self, account, self.seconds + more if self.seconds else 0.0)

    def call(
        self,
        call: Callable[[], _T],
        is_passing: Callable[[Exception], bool] | None = None,
        describe: Callable[[Exception], object] = str,
    ) -> _T:
        """Call a function; retry after temporary failures, with growing pauses.

        :param call: the function
        :param is_passing: tells whether an error is temporary; by default, `BackendUnavailable` is
        :param describe: returns what to log about an error, without secrets
        :returns: what the function returns
        :raises Exception: what the last attempt raised
        """
        tries = self.tries()
        while True:
            try:
                return call()
            except Exception as exc:
                passes = isinstance(exc, exceptions.BackendUnavailable)
                if is_passing is not None:
                    passes = is_passing(exc)
                if not passes or not tries.again(exc, describe):
                    raise

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until the transfer ends."""
        self._stop.wait(seconds)


class _Account:
    """Seconds spent on retries since the first failure; those of several threads count once."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._counted = 0.0  # up to this moment
        self._lock = threading.Lock()

    def add(self, begun: float, ended: float) -> None:
        """Count the time between two moments."""
        with self._lock:
            self.spent += max(0.0, ended - max(begun, self._counted))
            self._counted = max(ended, self._counted)


class Tries:
    """The attempts of one request. Created by `Patience.tries`."""

    def __init__(self, patience: Patience, account: _Account, seconds: float) -> None:
        self._patience = patience
        self._account = account
        self._seconds = seconds
        self._pause = _FIRST_PAUSE
        self._begun: float | None = None  # when the last retry began
        self._number = 0

    def again(self, exc: Exception, describe: Callable[[Exception], object] = str) -> bool:
        """Wait until the next attempt may begin.

        An error may carry the seconds the backend asked to wait (`retry_after`), and the seconds to
        keep retrying errors of its kind (`patience`).

        :param exc: what the last attempt raised
        :param describe: returns what to log about it, without secrets
        :returns: False if there must be no other attempt: the time is up, or the transfer ended
        """
        now = time.monotonic()
        if self._begun is not None:
            self._account.add(self._begun, now)
        own_patience = getattr(exc, "patience", None)
        most = self._seconds if own_patience is None else min(self._seconds, own_patience)
        left = most - self._account.spent
        asked = float(getattr(exc, "retry_after", 0.0))
        most_tries = self._patience.most
        if most_tries is not None and self._number >= most_tries:
            return False
        if left <= 0 or asked > left or self._patience.stopped:
            return False
        # The last attempt begins when the time is up, not some seconds before.
        pause = min(max(asked, self._pause * random.uniform(*_SPREAD)), left)  # noqa: S311 - no secret
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        rest = (
            f"for {left:.0f} s more"
            if most_tries is None
            else f"{most_tries - self._number} tries left"
        )
        LOG.warning("%s; trying again in %.1f s, %s", describe(exc), pause, rest)
        self._number += 1
        self._patience.wait(pause)
        self._begun = time.monotonic()
        self._account.add(now, self._begun)
        return not self._patience.stopped


def seconds_asked(text: str | None, date: str | None = None) -> float:
    """Return how many seconds a server asks to wait; 0 if it does not ask, or unreadably.

    :param text: value of the header Retry-After (RFC 9110, 10.2.3): seconds, or a date
    :param date: value of the header Date of the same response, as the server's clock may be wrong
    """
    text = (text or "").strip()
    if text.isdecimal():
        return float(text[:9])
    moment = moment_of(text)
    if moment is None:
        return 0.0
    now = moment_of(date) or datetime.datetime.now(datetime.timezone.utc)
    return max(0.0, (moment - now).total_seconds())


def moment_of(text: str | None) -> datetime.datetime | None:
    """Parse the date in an HTTP header; None if it is not a date."""
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
    except (TypeError, ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


class ResumingReader:
    """Wraps a reader to retry reads that fail temporarily.

    :param reader: the reader; its `read_at` must work at any offset, any number of times
    :param patience: how long to retry
    :param transient: exceptions to retry
    """

    def __init__(
        self,
        reader: ImageReader,
        patience: Patience,
        transient: tuple[type[Exception], ...] = (exceptions.BackendUnavailable,),
    ) -> None:
        self._reader = reader
        self._patience = patience
        self._transient = transient

    @property
    def size(self) -> int | None:
        """Bytes of the image; None if the backend does not tell."""
        return self._reader.size

    @property
    def version(self) -> str | None:
        """Identifies the content of the image; None if unknown."""
        return getattr(self._reader, "version", None)

    @property
    def concurrency(self) -> int:
        """Number of `read_at` calls to keep in flight."""
        return self._reader.concurrency

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset, with retries."""
        return self._again(lambda: self._reader.read_at(offset, length), offset)

    def _again(self, call: Callable[[], _T], offset: int) -> _T:
        return self._patience.call(
            call,
            lambda exc: isinstance(exc, self._transient),
            lambda exc: f"Reading an image broke off at byte {offset} ({exc})",
        )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield which parts of a range are data and which are holes."""
        return self._reader.extents(offset, length)

    def interrupt(self) -> None:
        """End pauses and reads on other threads."""
        self._patience.stop()
        interrupt = getattr(self._reader, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def close(self) -> None:
        """Close the image."""
        self._reader.close()


class ResumingStreamingReader(ResumingReader):
    """A `ResumingReader` for streams: when one breaks off, another resumes where it ended.

    :param reader: the reader; its streams may end before the range does
    :param patience: how long to retry
    :param transient: exceptions to retry
    """

    _reader: StreamingReader

    def __init__(
        self,
        reader: StreamingReader,
        patience: Patience,
        transient: tuple[type[Exception], ...] = (exceptions.BackendUnavailable,),
    ) -> None:
        super().__init__(reader, patience, transient)
        self._open: set[_ResumingStream] = set()

    @property
    def range_size(self) -> int:
        """Bytes of each parallel range."""
        return self._reader.range_size

    @property
    def memory(self) -> Memory | None:
        """Memory shared by the transfers of the store; None if unlimited."""
        return getattr(self._reader, "memory", None)

    def open_stream(self, offset: int, length: int) -> Stream:
        """Request bytes at an offset, with retries."""
        stream = _ResumingStream(
            self._reader, self._again, self._transient, self._open, offset, offset + length
        )
        self._open.add(stream)
        return stream

    def interrupt(self) -> None:
        """End pauses and reads on other threads."""
        super().interrupt()
        for stream in list(self._open):
            stream.interrupt()


class _ResumingStream:
    """The bytes of a range, from as many streams as it takes.

    :param again: calls a function that reads at an offset, with retries
    :param others: all open streams of the reader, including this one until it is closed
    """

    def __init__(
        self,
        reader: StreamingReader,
        again: Callable[[Callable[[], bytes], int], bytes],
        transient: tuple[type[Exception], ...],
        others: set[_ResumingStream],
        position: int,
        stop: int,
    ) -> None:
        self._reader = reader
        self._again = again
        self._transient = transient
        self._others = others
        self._position = position
        self._stop = stop
        self._stream: Stream | None = None
        self._interrupted = False

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes."""
        if self._position >= self._stop:
            return b""
        data = self._read_on(length) or self._again(lambda: self._begin(length), self._position)
        self._position += len(data)
        return data

    def _read_on(self, length: int) -> bytes:
        """Return the next bytes of the open stream; empty if there is none."""
        if self._stream is None:
            return b""
        try:
            return self._stream.read(length)
        except self._transient as exc:
            # Not a failed attempt: this stream has delivered what comes before.
            LOG.info("Reading an image resumes at byte %d (%s)", self._position, exc)
            self._let_go()
            return b""

    def _begin(self, length: int) -> bytes:
        self._let_go()
        self._check()
        self._stream = self._reader.open_stream(self._position, self._stop - self._position)
        # interrupt() may have been called after the last check, but before this stream was set.
        self._check()
        return self._stream.read(length)

    def _check(self) -> None:
        if self._interrupted:
            raise exceptions.BackendException("The download was closed during a read")

    def interrupt(self) -> None:
        """End a read on another thread."""
        self._interrupted = True
        interrupt = getattr(self._stream, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Discard what was not read."""
        self._others.discard(self)
        self._let_go()
