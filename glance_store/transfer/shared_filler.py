# SPDX-License-Identifier: Apache-2.0
"""Fetches chunks of an image from its backend for all processes that share them."""

from __future__ import annotations

import os
import threading
from typing import cast

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer import sparse
from glance_store.transfer.download import Download
from glance_store.transfer.interface import ImageReader, InterruptibleReader
from glance_store.transfer.shared_files import CHUNK, ChunkLock, ImageFile, SharingError
from glance_store.transfer.shared_folder import Folder
from glance_store.transfer.threads import start

# Seconds to wait at the end of a download until its last chunk is written.
_PATIENCE = 10.0


class Filler:
    """Fetches consecutive chunks on a thread, at the speed of the backend.

    It ends at a chunk that is already there or being fetched by another download, or when stopped.

    :param folder: reserves the space
    :param file: stores the chunks
    :param first: number of the first chunk
    :param lock: lock on the first chunk; None to fetch it without one
    :param reader: the image; closed at the end
    :param download: reads the image from the first byte of the first chunk
    """

    def __init__(
        self,
        folder: Folder,
        file: ImageFile,
        first: int,
        lock: ChunkLock | None,
        reader: ImageReader,
        download: Download,
    ) -> None:
        self._folder = folder
        self._file = file
        self._number = first
        self._lock = lock
        self._reader = reader
        self._download = download
        self._process = os.getpid()
        # Reentrant: the garbage collector may call stop() on a thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._stopped = False
        self._rest = b""  # bytes already read that belong to the next chunk
        self._last: tuple[int, list[bytes]] | None = None  # the latest chunk
        self.ended = False
        self.error: BaseException | None = None
        self.fetched = 0

    def start(self) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._run, name="glance_store-download", daemon=True)
        try:
            start(thread)
        except exceptions.BackendUnavailable as exc:
            self._end()
            raise SharingError(str(exc)) from exc

    def _run(self) -> None:
        try:
            while (parts := self._fetch()) is not None and self._go_on(parts):
                pass
        except BaseException as exc:  # noqa: BLE001 - raised where the bytes are wanted
            self.error = exc
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self._download.close()
        finally:
            if self._lock is not None:
                self._lock.release()
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _fetch(self) -> list[bytes] | None:
        """Return the bytes of a chunk in parts; None at the end."""
        wanted = min(CHUNK, self._file.size - self._number * CHUNK)
        parts: list[bytes] = []
        while wanted > 0:
            part = self._rest or next(self._download, None)
            if part is None or self._stopped:
                # The end: if it is too early, the download itself notices.
                return None
            part, self._rest = part[:wanted], part[wanted:]
            parts.append(part)
            wanted -= len(part)
        with self._changed:
            self._last = self._number, parts
            self.fetched += sum(map(len, parts))
            self._changed.notify_all()
        return parts

    def _keep(self, parts: list[bytes]) -> None:
        if all(sparse.is_zero(part) for part in parts):
            self._file.write_zeros(self._number)
        elif self._folder.reserve(self._file, self._number):
            self._file.write(self._number, parts)
        else:
            raise SharingError(_("it is full, and all images in it are in use"))

    def _go_on(self, parts: list[bytes]) -> bool:
        """Store a chunk and lock the next one; False if there is none to fetch."""
        following, lock = self._number + 1, None
        wanted = not self._stopped and following < self._file.chunks
        if wanted and not self._file.has(following):
            # Before the chunk becomes visible: its next reader would take the lock first.
            lock = self._file.lock(following)
        try:
            self._keep(parts)
        finally:
            if self._lock is not None:
                self._lock.release()
            self._lock, self._number = lock, following
        # Another download may have stored it between has() and lock().
        return lock is not None and not self._file.has(following)

    def wait(self, number: int) -> list[bytes] | None:
        """Wait until a chunk has been fetched, or this has ended.

        :returns: the chunk in parts if it is the latest; else None: it was written, or this ended
        """
        with self._changed:
            while not self.ended and (self._last is None or self._last[0] < number):
                self._changed.wait()
            if self._last is not None and self._last[0] == number:
                return self._last[1]
            return None

    def finish(self) -> None:
        """Wait until the latest chunk is written, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended, _PATIENCE)

    def stop(self) -> None:
        """Stop fetching, without waiting. The thread closes the image."""
        self._stopped = True
        # Not in a forked child, which shares the connections with its parent.
        here = self._process == os.getpid()
        if here and not self.ended and hasattr(self._reader, "interrupt"):
            cast("InterruptibleReader", self._reader).interrupt()
