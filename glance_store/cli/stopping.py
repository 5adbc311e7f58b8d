# SPDX-License-Identifier: Apache-2.0
"""Stops transfers that run in other threads, so that they leave nothing behind."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from glance_store.cli.output import Progress
from glance_store.cli.verification import closing

LOG = logging.getLogger(__name__)


class StoppedError(Exception):
    """The transfer was told to stop."""


class Stop:
    """Stops transfers in other threads, even those that wait for a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: list[Any] = []
        self._is_set = False

    def set(self) -> None:
        """Stop the running transfers, and those to come."""
        with self._lock:
            self._is_set = True
            sources = list(self._sources)
        for source in sources:
            try:
                with closing(source):
                    pass
            except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way;
                # its transfer ends with the next chunk.
                LOG.debug("Cannot close a source: %s", exc)

    def check(self) -> None:
        """Raise StoppedError if the transfers must stop."""
        if self._is_set:
            raise StoppedError

    @contextlib.contextmanager
    def reading(self, chunks: Any) -> Iterator[None]:
        """Close the chunks of an image at the end, or as soon as the transfers must stop."""
        with closing(chunks):
            with self._lock:
                self._sources.append(chunks)
            try:
                self.check()
                yield
            finally:
                with self._lock:
                    self._sources.remove(chunks)


class Counted(Progress):
    """Counts the bytes of a transfer that may be told to stop."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        super().__init__()
        self._progress = progress
        self._stop = stop

    def add(self, length: int) -> None:
        """Count `length` more bytes; StoppedError if the transfer must stop."""
        self._stop.check()
        self._progress.add(length)
