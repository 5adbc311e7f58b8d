# SPDX-License-Identifier: Apache-2.0
"""Further tries where a backend failed for a passing reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader, Stream, StreamingReader

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# Seconds before the first further try; doubled each time.
FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


def retrying(
    call: Callable[[], _T],
    retries: int,
    is_passing: Callable[[Exception], bool],
    describe: Callable[[Exception], object] = str,
    pause: float = FIRST_PAUSE,
) -> _T:
    """Call a function, again after growing pauses where that may help.

    :param call: the function
    :param retries: tries after the first one
    :param is_passing: whether another try may cure an error
    :param describe: what the log says of an error; without secrets
    :param pause: seconds before the first further try; doubled each time up to 5
    :returns: what the function returns
    :raises Exception: what the last try has raised
    """
    tries_left = retries
    while True:
        try:
            return call()
        except Exception as exc:
            if tries_left <= 0 or not is_passing(exc):
                raise
            LOG.warning(
                "%s; trying again in %.1f s, %d tries left", describe(exc), pause, tries_left
            )
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
        tries_left -= 1


class ResumingReader:
    """Wraps a reader: a read that fails for a passing reason is asked for again.

    :param reader: the reader to wrap; its `read_at` must be able to start at any offset anew
    :param retries: tries after the first one, for each read
    :param pause: seconds before the first further try; doubled each time up to 5
    :param transient: exceptions that another try may cure
    """

    def __init__(
        self,
        reader: ImageReader,
        retries: int,
        pause: float = FIRST_PAUSE,
        transient: tuple[type[Exception], ...] = (exceptions.RemoteServiceUnavailable,),
    ) -> None:
        self._reader = reader
        self._retries = retries
        self._pause = pause
        self._transient = transient

    @property
    def size(self) -> int | None:
        """Bytes of the image; None when the backend does not say."""
        return self._reader.size

    @property
    def concurrency(self) -> int:
        """How many `read_at` calls are worth having in flight."""
        return self._reader.concurrency

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset, with further tries."""
        return self._again(lambda: self._reader.read_at(offset, length), offset)

    def _again(self, call: Callable[[], _T], offset: int) -> _T:
        return retrying(
            call,
            self._retries,
            lambda exc: isinstance(exc, self._transient),
            lambda exc: f"Reading an image broke off at byte {offset} ({exc})",
            self._pause,
        )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say which parts of a range are data and which are holes."""
        return self._reader.extents(offset, length)

    def close(self) -> None:
        """Let go of the image."""
        self._reader.close()


class ResumingStreamingReader(ResumingReader):
    """The same for a reader of streams: a stream that breaks off goes on with another one.

    :param reader: the reader
    :param retries: tries after the first one, for each read
    :param pause: seconds before the first further try; doubled each time
    :param transient: exceptions that may pass
    """

    _reader: StreamingReader

    def __init__(
        self,
        reader: StreamingReader,
        retries: int,
        pause: float = FIRST_PAUSE,
        transient: tuple[type[Exception], ...] = (exceptions.RemoteServiceUnavailable,),
    ) -> None:
        super().__init__(reader, retries, pause, transient)

    @property
    def range_size(self) -> int:
        """Bytes of the ranges that are asked for side by side."""
        return self._reader.range_size

    def open_stream(self, offset: int, length: int) -> Stream:
        """Ask for bytes at an offset; what breaks off is asked for again."""
        return _ResumingStream(self._reader, self._again, self._transient, offset, offset + length)


class _ResumingStream:
    """The bytes of a range, from as many streams as it takes.

    :param reader: that opens them
    :param again: calls a function that reads at an offset, with further tries
    :param transient: exceptions that another try may cure
    :param position: first byte
    :param stop: the byte behind the last one
    """

    def __init__(
        self,
        reader: StreamingReader,
        again: Callable[[Callable[[], bytes], int], bytes],
        transient: tuple[type[Exception], ...],
        position: int,
        stop: int,
    ) -> None:
        self._reader = reader
        self._again = again
        self._transient = transient
        self._position = position
        self._stop = stop
        self._stream: Stream | None = None

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
            self.close()
            return b""

    def _begin(self, length: int) -> bytes:
        self.close()
        self._stream = self._reader.open_stream(self._position, self._stop - self._position)
        return self._stream.read(length)

    def close(self) -> None:
        """Let go of what was not read."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
