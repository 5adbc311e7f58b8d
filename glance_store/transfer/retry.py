# SPDX-License-Identifier: Apache-2.0
"""A reader that tries again where its backend broke off."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from glance_store import exceptions
from glance_store.transfer.interface import Extent, ImageReader

LOG = logging.getLogger(__name__)

_LONGEST_PAUSE = 5.0


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
        pause: float = 0.2,
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
        pause, tries_left = self._pause, self._retries
        while True:
            try:
                return self._reader.read_at(offset, length)
            except self._transient as exc:
                if tries_left <= 0:
                    raise
                LOG.warning(
                    "Reading an image broke off at byte %d (%s); trying again in %.1f s, "
                    "%d tries left",
                    offset,
                    exc,
                    pause,
                    tries_left,
                )
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                tries_left -= 1

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say which parts of a range are data and which are holes."""
        return self._reader.extents(offset, length)

    def close(self) -> None:
        """Let go of the image."""
        self._reader.close()
