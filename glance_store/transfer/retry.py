# SPDX-License-Identifier: Apache-2.0
"""Further tries where a backend failed for a passing reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader

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
        return retrying(
            lambda: self._reader.read_at(offset, length),
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
