# SPDX-License-Identifier: Apache-2.0
"""One download for many readers: what one has fetched serves all others on the host.

A download that needs a chunk nobody has or is fetching starts a thread. The thread fetches it and
all that follow, up to the next chunk that is there, without waiting for its consumer. A download
that needs a chunk being fetched waits for it, for a limited time. A problem with the directory ends
the sharing for that download, but never the download itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer.download import Chunks, Download, clip
from glance_store.transfer.interface import ImageReader
from glance_store.transfer.shared_files import (
    CHUNK,
    PART,
    DamagedError,
    ImageFile,
    SharingError,
)
from glance_store.transfer.shared_filler import Filler
from glance_store.transfer.shared_folder import Folder

LOG = logging.getLogger(__name__)

# Seconds to wait for a chunk that another download fetches before fetching it anyway: the first
# time, and later, when the other one has probably been stopped.
_PATIENCE = 10.0
_LESS_PATIENCE = 1.0
# Seconds between checks for a chunk that another download fetches.
_PAUSE = 0.01


class _Opener:
    """Opens one version of an image: first returns the given reader, then opens new ones."""

    def __init__(self, reader: ImageReader, open_reader: Callable[[int, int], ImageReader]) -> None:
        self._reader: ImageReader | None = reader
        self._version = version_of(reader)
        self._open_reader = open_reader

    def open(self, offset: int, length: int) -> ImageReader:
        """Open the image, or raise RemoteServiceUnavailable if it was replaced."""
        reader, self._reader = self._reader, None
        if reader is None:
            reader = self._open_reader(offset, length)
            if version_of(reader) != self._version:
                reader.close()
                raise exceptions.RemoteServiceUnavailable(
                    _(
                        "The image was replaced during the download, at byte %(offset)d; discard "
                        "what was read and start the download again"
                    ),
                    offset=offset,
                )
        return reader

    def close(self) -> None:
        """Close the reader that nobody has asked for."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def version_of(reader: ImageReader) -> str | None:
    """Return what identifies the content of an image; None if unknown."""
    version = getattr(reader, "version", None)
    return version if isinstance(version, str) and version else None


class SharedDownload(Chunks):
    """A `Download` that shares what it reads with other downloads on the host.

    It closes `file` and `opener`.
    """

    def __init__(
        self,
        folder: Folder,
        file: ImageFile,
        opener: _Opener,
        offset: int,
        length: int | None,
        chunk_size: int,
    ) -> None:
        self._closed = False
        self._folder = folder
        self._file = file
        self._opener = opener
        self._chunk_size = chunk_size
        self._filler: Filler | None = None
        self._direct: Download | None = None
        self._stopped = threading.Event()
        self._patience = _PATIENCE
        self._fetched = self._given = 0
        self.length = clip(file.size, offset, length) or 0
        self._chunks = self._shared(offset, offset + self.length)

    def __next__(self) -> bytes:
        if self._closed:
            raise StopIteration
        try:
            chunk = next(self._chunks)
        except BaseException:
            self.close()
            raise
        self._given += len(chunk)
        if self._given == self.length:
            # Before the last bytes are delivered: the caller may delete the image next.
            if self._filler is not None:
                self._filler.finish()
            self.close()
        return chunk

    def close(self) -> None:
        """Stop reading and close the image. May be called from any thread."""
        if self._closed:
            return
        self._end()
        self._count()

    def __del__(self) -> None:
        # Never wait here: the garbage collector may run in any thread, at any time.
        if not self._closed:
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._stopped.set()
        if self._filler is not None:
            self._filler.stop()
        if self._direct is not None:
            self._direct.close()
        self._opener.close()
        self._file.close()

    def _count(self) -> None:
        filler = self._filler
        saved = self._given - self._fetched - (filler.fetched if filler is not None else 0)
        if saved <= 0:
            return
        try:
            self._folder.count(saved)
            self._folder.trouble = None
        except SharingError as exc:
            LOG.debug("Shared reads in %s: cannot count them: %s", self._folder.path, exc)

    def _shared(self, position: int, stop: int) -> Iterator[bytes]:
        try:
            while position < stop:
                end = min((position // CHUNK + 1) * CHUNK, stop)
                for chunk in self._chunk(position, end, stop):
                    position += len(chunk)
                    yield chunk
            return
        except SharingError as exc:
            if self._stopped.is_set():
                return
            self._give_up(exc)
        rest = stop - position
        reader = self._opener.open(position, rest)
        self._direct = Download(reader, position, rest, self._chunk_size)
        if self._stopped.is_set():
            # close() may have run before `_direct` was set.
            self._direct.close()
        for chunk in self._direct:
            self._fetched += len(chunk)
            yield chunk

    def _give_up(self, error: SharingError) -> None:
        _warn(self._folder, error)
        filler, self._filler = self._filler, None
        if filler is not None:
            filler.stop()
            self._fetched += filler.fetched
        if isinstance(error, DamagedError):
            with contextlib.suppress(SharingError):
                self._folder.drop(self._file.path)

    def _chunk(self, position: int, end: int, stop: int) -> Iterator[bytes]:
        """Yield bytes of one chunk as they arrive."""
        number = position // CHUNK
        while position < end and not self._stopped.is_set():
            if self._filler is not None:
                parts = self._filler.wait(number)
                if parts is not None:
                    yield from _cut(parts, position - number * CHUNK, end - number * CHUNK)
                    return
            # Up to the end of a part: each is read and verified once, however small the chunks are.
            until = min((position + max(self._chunk_size, PART)) // PART * PART, end)
            data = self._file.read(position, until - position)
            if data is not None:
                # Reading what others have fetched needs no open connection.
                self._opener.close()
                position = until
                for start in range(0, len(data), self._chunk_size):
                    yield data[start : start + self._chunk_size]
                continue
            self._let_go_of_filler()
            self._fetch(number, stop)

    def _let_go_of_filler(self) -> None:
        """Forget the filler, and raise the error it failed with."""
        filler, self._filler = self._filler, None
        if filler is None:
            return
        self._fetched += filler.fetched
        if filler.error is not None and not self._stopped.is_set():
            raise filler.error

    def _fetch(self, number: int, stop: int) -> None:
        """Start fetching a chunk and those that follow, unless another download delivers it."""
        limit = time.monotonic() + self._patience
        lock = self._file.lock(number)
        while lock is None and time.monotonic() < limit:
            if self._stopped.wait(_PAUSE) or self._file.has(number):
                return
            lock = self._file.lock(number)
        if lock is None:
            LOG.debug("%s: another download takes too long for chunk %d", self._file.path, number)
            self._patience = _LESS_PATIENCE
        try:
            if self._file.has(number):
                return
            first, end = number * CHUNK, self._end_of_missing(number, stop)
            reader = self._opener.open(first, end - first)
            download = Download(reader, first, end - first, self._chunk_size)
            filler = Filler(self._folder, self._file, number, lock, reader, download)
            lock = None
        finally:
            if lock is not None:
                lock.release()
        self._filler = filler
        filler.start()
        if self._stopped.is_set():
            # close() may have run before `_filler` was set.
            filler.stop()

    def _end_of_missing(self, number: int, stop: int) -> int:
        """Return where to stop fetching: at the next chunk that is there."""
        chunks = -(-stop // CHUNK)
        while number + 1 < chunks and not self._file.has(number + 1):
            number += 1
        return min((number + 1) * CHUNK, self._file.size)


def _cut(parts: list[bytes], first: int, end: int) -> Iterator[bytes]:
    """Yield the bytes between two offsets of consecutive parts."""
    position = 0
    for part in parts:
        start, stop = max(first - position, 0), min(end - position, len(part))
        position += len(part)
        if start < stop:
            yield part if stop - start == len(part) else part[start:stop]


def _warn(folder: Folder, error: SharingError) -> None:
    text = str(error)
    # Warn again only about another error, or after a success in between.
    level = logging.DEBUG if text == folder.trouble else logging.WARNING
    folder.trouble = text
    LOG.log(
        level,
        "Shared reads in %s: %s; the image is read from its store instead",
        folder.path,
        text,
    )


class SharedReads:
    """Shares the downloads of a store with other processes of the host.

    :param folder: the directory to share them in
    :param min_size: minimum bytes of an image worth sharing
    """

    def __init__(self, folder: Folder, min_size: int) -> None:
        self.folder = folder
        self._min_size = min_size

    def download(
        self,
        reader: ImageReader,
        uri: str,
        open_reader: Callable[[int, int], ImageReader],
        offset: int,
        length: int | None,
        chunk_size: int,
    ) -> SharedDownload | None:
        """Return a shared download, which takes over the reader; None if sharing does not pay.

        :param reader: the image
        :param uri: location of the image
        :param open_reader: opens the image to read at most a given length from an offset
        """
        version, size = version_of(reader), reader.size
        wanted = clip(size, offset, length)
        if not version or not size or size < self._min_size or size > self.folder.limit:
            return None
        if not wanted or wanted < min(CHUNK, size):
            # Too little to fetch a whole chunk for.
            return None
        try:
            file = self.folder.open(uri, version, size)
        except SharingError as exc:
            _warn(self.folder, exc)
            return None
        opener = _Opener(reader, open_reader)
        return SharedDownload(self.folder, file, opener, offset, length, chunk_size)
