# SPDX-License-Identifier: Apache-2.0
"""Fetches chunks of an image from its backend for all that share them."""

from __future__ import annotations

import os
import threading
from typing import cast

from glance_store.i18n import _
from glance_store.transfer import sparse
from glance_store.transfer.download import Download
from glance_store.transfer.interface import ImageReader, InterruptibleReader
from glance_store.transfer.shared_files import CHUNK, ChunkLock, ImageFile, SharingError
from glance_store.transfer.shared_folder import Folder

# Seconds that the end of a download waits for its last chunk to be written.
_PATIENCE = 10.0


class Filler:
    """Fetches chunks that follow each other, on a thread, at the speed of the backend.

    It ends where one is there already or is fetched by another, and when it is stopped.

    :param folder: takes the room
    :param file: takes the chunks
    :param first: number of the first chunk
    :param lock: on that one; None to do without
    :param reader: of the image; closed at the end
    :param download: what it reads, from the first byte of the first chunk on
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
        # Reentrant: the collector may stop it in a thread that has it.
        self._changed = threading.Condition(threading.RLock())
        self._stopped = False
        self._rest = b""  # of what has come, and belongs to the next chunk
        self._last: tuple[int, list[bytes]] | None = None  # the chunk that came last
        self.ended = False
        self.error: BaseException | None = None
        self.fetched = 0

    def start(self) -> None:
        """Begin."""
        thread = threading.Thread(target=self._run, name="glance_store-download", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._end()
            raise

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
        """Return the bytes of a chunk in parts; None when no more come."""
        wanted = min(CHUNK, self._file.size - self._number * CHUNK)
        parts: list[bytes] = []
        while wanted > 0:
            part = self._rest or next(self._download, None)
            if part is None or self._stopped:
                # All there is: the download itself notices a short one.
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
            raise SharingError(_("it is full, and all that is in it is in use"))

    def _go_on(self, parts: list[bytes]) -> bool:
        """Note a chunk, and be the one who fetches the next; False when there is none to fetch."""
        following, lock = self._number + 1, None
        wanted = not self._stopped and following < self._file.chunks
        if wanted and not self._file.has(following):
            # Before the chunk can be seen: who has just read it would be the first to come.
            lock = self._file.lock(following)
        try:
            self._keep(parts)
        finally:
            if self._lock is not None:
                self._lock.release()
            self._lock, self._number = lock, following
        # It may have come between the two.
        return lock is not None and not self._file.has(following)

    def wait(self, number: int) -> list[bytes] | None:
        """Wait for a chunk, or for the end.

        :param number: of the chunk, which this one has been asked to fetch
        :returns: its bytes in parts while they are at hand; else it has been written, or this ended
        """
        with self._changed:
            while not self.ended and (self._last is None or self._last[0] < number):
                self._changed.wait()
            if self._last is not None and self._last[0] == number:
                return self._last[1]
            return None

    def finish(self) -> None:
        """Wait until the chunk that came last is written, as long as that is no trouble."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended, _PATIENCE)

    def stop(self) -> None:
        """Fetch no more; waits for nothing. The thread lets go of the image."""
        self._stopped = True
        # Not in a forked child: the connections are those of its parent.
        here = self._process == os.getpid()
        if here and not self.ended and hasattr(self._reader, "interrupt"):
            cast("InterruptibleReader", self._reader).interrupt()
