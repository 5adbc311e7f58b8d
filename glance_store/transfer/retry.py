# SPDX-License-Identifier: Apache-2.0
"""Further tries where a backend failed for a passing reason: the one loop of all drivers.

Patience is measured in seconds, not in tries: a proxy that restarts takes as long for one request
as for another. Whoever ends a transfer ends its pauses, too.
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

# Of the statuses 5xx those that another request does not cure: not implemented, a version of HTTP
# that is not spoken, no space, a loop, more extensions or a login needed.
_LASTING = frozenset({501, 505, 506, 507, 508, 510, 511})
# Statuses of HTTP that another request may cure: too early, too many, the server is not well, or
# (499, 520 and above) a proxy has trouble with the server behind it.
PASSING = frozenset({408, 425, 429, 499, *range(500, 600)}) - _LASTING

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
# Of many transfers that fail together, not all come again in the same moment.
_SPREAD = (0.8, 1.2)


class Patience:
    """How long the passing failures of one transfer are borne.

    :param seconds: from the first failure of a request until its last try begins; 0: no further try
    :param in_all: the seconds are those of all requests together, as for clean-up
    :param most: further tries of a request, where an operator has counted them; None: no limit
    """

    def __init__(self, seconds: float, in_all: bool = False, most: int | None = None) -> None:
        self.seconds = seconds
        self.most = most
        self._in_all = in_all
        self.spent = 0.0
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether the transfer is over."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Begin no further try, and end pauses at once; from any thread."""
        self._stop.set()

    def tries(self, more: float = 0.0) -> Tries:
        """Return the tries of a request.

        :param more: seconds that it may take besides, such as for work in proportion to its size
        """
        account = _Account() if not self._in_all else self
        return Tries(self, account, self.seconds + more if self.seconds else 0.0)

    def call(
        self,
        call: Callable[[], _T],
        is_passing: Callable[[Exception], bool] | None = None,
        describe: Callable[[Exception], object] = str,
    ) -> _T:
        """Call a function, again after growing pauses where that may help.

        :param call: the function
        :param is_passing: whether another try may cure an error; None: if it says so itself, as
            `BackendUnavailable`
        :param describe: what the log says of an error; without secrets
        :returns: what the function returns
        :raises Exception: what the last try has raised
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
        """Wait; at most until the transfer is over."""
        self._stop.wait(seconds)


class _Account:
    spent = 0.0  # seconds since the first failure


class Tries:
    """The tries of one request. Made by `Patience.tries`."""

    def __init__(self, patience: Patience, account: Patience | _Account, seconds: float) -> None:
        self._patience = patience
        self._account = account
        self._seconds = seconds
        self._pause = _FIRST_PAUSE
        self._begun: float | None = None  # when the last try began, unless it was the first
        self._number = 0

    def again(self, exc: Exception, describe: Callable[[Exception], object] = str) -> bool:
        """Wait until another try may begin.

        An error may say for how many seconds the backend wants to be left alone (`retry_after`),
        and for how long one of its kind is worth bearing (`patience`).

        :param exc: what the last try has raised
        :param describe: what the log says of it; without secrets
        :returns: False when there may be none: the time is up, or the transfer is over
        """
        now = time.monotonic()
        if self._begun is not None:
            self._account.spent += now - self._begun
        lasting = getattr(exc, "patience", None)
        most = self._seconds if lasting is None else min(self._seconds, lasting)
        left = most - self._account.spent
        asked = float(getattr(exc, "retry_after", 0.0))
        most_tries = self._patience.most
        if most_tries is not None and self._number >= most_tries:
            return False
        if left <= 0 or asked > left or self._patience.stopped:
            return False
        # The last try begins when the time is up, not some seconds before.
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
        self._account.spent += self._begun - now
        return not self._patience.stopped


def seconds_asked(text: str | None, date: str | None = None) -> float:
    """Return for how long a server wants to be left alone.

    :param text: value of the header Retry-After (RFC 9110, 10.2.3), a number of seconds or a date
    :param date: value of the header Date of the same answer: the clock of the server may be wrong
    :returns: seconds; 0 where there is no such header, or nobody understands it
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
    """Return the time that a header of HTTP names; None where it names none.

    :param text: value of the header
    """
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


class ResumingReader:
    """Wraps a reader: a read that fails for a passing reason is asked for again.

    :param reader: the reader to wrap; its `read_at` must be able to start at any offset anew
    :param patience: for how long
    :param transient: exceptions that another try may cure
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
        """Bytes of the image; None when the backend does not say."""
        return self._reader.size

    @property
    def version(self) -> str | None:
        """What tells these bytes from others at the same place; None when that is not known."""
        return getattr(self._reader, "version", None)

    @property
    def concurrency(self) -> int:
        """How many `read_at` calls are worth having in flight."""
        return self._reader.concurrency

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset, with further tries."""
        return self._again(lambda: self._reader.read_at(offset, length), offset)

    def _again(self, call: Callable[[], _T], offset: int) -> _T:
        return self._patience.call(
            call,
            lambda exc: isinstance(exc, self._transient),
            lambda exc: f"Reading an image broke off at byte {offset} ({exc})",
        )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say which parts of a range are data and which are holes."""
        return self._reader.extents(offset, length)

    def interrupt(self) -> None:
        """End pauses and reads that other threads wait in."""
        self._patience.stop()
        interrupt = getattr(self._reader, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def close(self) -> None:
        """Let go of the image."""
        self._reader.close()


class ResumingStreamingReader(ResumingReader):
    """The same for a reader of streams: a stream that breaks off goes on with another one.

    :param reader: the reader
    :param patience: for how long
    :param transient: exceptions that may pass
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
        """Bytes of the ranges that are asked for side by side."""
        return self._reader.range_size

    @property
    def memory(self) -> Memory | None:
        """What the transfers of the store share; None: there is no limit."""
        return getattr(self._reader, "memory", None)

    def open_stream(self, offset: int, length: int) -> Stream:
        """Ask for bytes at an offset; what breaks off is asked for again."""
        stream = _ResumingStream(
            self._reader, self._again, self._transient, self._open, offset, offset + length
        )
        self._open.add(stream)
        return stream

    def interrupt(self) -> None:
        """End pauses and reads that other threads wait in."""
        super().interrupt()
        for stream in list(self._open):
            stream.interrupt()


class _ResumingStream:
    """The bytes of a range, from as many streams as it takes.

    :param reader: that opens them
    :param again: calls a function that reads at an offset, with further tries
    :param transient: exceptions that another try may cure
    :param others: the streams that are open, this one too until it is closed
    :param position: first byte
    :param stop: the byte behind the last one
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
        """Return the next bytes of the stream that is open; nothing where there is none."""
        if self._stream is None:
            return b""
        try:
            return self._stream.read(length)
        except self._transient as exc:
            # No try has failed: this one has brought what precedes.
            LOG.info("Reading an image goes on at byte %d (%s)", self._position, exc)
            self._let_go()
            return b""

    def _begin(self, length: int) -> bytes:
        self._let_go()
        self._check()
        self._stream = self._reader.open_stream(self._position, self._stop - self._position)
        # It may have come after the last look, and before there was a stream to end.
        self._check()
        return self._stream.read(length)

    def _check(self) -> None:
        if self._interrupted:
            raise exceptions.BackendException("The download was closed while it was read")

    def interrupt(self) -> None:
        """End what another thread waits for."""
        self._interrupted = True
        interrupt = getattr(self._stream, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Let go of what was not read."""
        self._others.discard(self)
        self._let_go()
