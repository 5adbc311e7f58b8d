# SPDX-License-Identifier: Apache-2.0
"""The local directory in which the processes of a host share what they read of images."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from glance_store.transfer.owners import make_shared, open_shared
from glance_store.transfer.shared_files import (
    MAGIC,
    DamagedError,
    ImageFile,
    SharingError,
    guarded,
    length_of,
    write_all,
)

# Magic, bytes in use, downloads served from the directory, bytes they got from it.
_INDEX = struct.Struct("<28sQQQ")
_INDEX_NAME = "index"
# Maximum seconds to wait for the index, and seconds between attempts.
_PATIENCE = 2.0
_PAUSE = 0.005
_SUFFIX = ".image"
_NAME = re.compile(rf"[0-9a-f]{{32}}-[0-9a-f]{{32}}{re.escape(_SUFFIX)}")


class Usage(NamedTuple):
    """Contents and benefit of a directory of shared reads."""

    used: int  # bytes
    limit: int  # bytes
    downloads: int  # downloads that got at least some bytes from it
    saved: int  # bytes that the backends did not have to send


class Folder:
    """A directory of shared files.

    :param path: the directory; created if missing
    :param limit: maximum bytes of all files
    """

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.trouble: str | None = None  # the last error in the log

    def open(self, uri: str, version: str, size: int) -> ImageFile:
        """Open or create the file of an image.

        :param uri: location of the image
        :param version: identifies its content
        :param size: bytes of the image, more than 0
        """
        key = _digest(f"{len(uri)} {uri} {version} {size}")
        path = os.path.join(self.path, f"{_name_prefix(uri)}-{key.hex()[:32]}{_SUFFIX}")
        for _try in range(10):
            with guarded():
                make_shared(self.path, 0o700)
                file = ImageFile(open_shared(path, 0o600), path, size)
            try:
                with file.opened() as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                    about = os.fstat(descriptor)
                    if about.st_uid not in (os.geteuid(), os.stat(self.path).st_uid):
                        # Its checksums would fit whatever that user has put there.
                        raise SharingError("another user has made the file of the image")
                    if about.st_nlink:
                        file.prepare(key)
                        # Files are removed by age of last use.
                        os.utime(descriptor)
                        return file
                # It was removed before it was locked.
                file.close()
            except DamagedError:
                file.close()
                self.drop(path)
            except BaseException:
                file.close()
                raise
        raise SharingError(f"{path} keeps being removed")

    def drop(self, path: str) -> None:
        """Remove a file. Those who have it open can still use it."""
        with guarded(), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def forget(self, uri: str) -> None:
        """Remove the files of an image, whatever its version."""
        prefix = _name_prefix(uri)
        with guarded():
            found = [entry.path for entry in self._files() if entry.name.startswith(prefix)]
        for path in found:
            self.drop(path)

    def reserve(self, file: ImageFile, number: int) -> bool:
        """Allocate the space of a chunk, removing the least recently used images if necessary.

        :returns: False if there is no space, because all images are in use
        """
        wanted = length_of(number, file.size)
        with guarded(), self._index() as index:
            if index.used + wanted > self.limit:
                index.used = self._make_room(wanted)
            if index.used + wanted > self.limit:
                return False
            # Record first, then allocate: a crash in between wastes space, but never exceeds it.
            index.used += wanted
            index.save()
            file.allocate(number)
        return True

    def _make_room(self, wanted: int) -> int:
        """Remove unused images, the least recently used first; return the bytes in use."""
        found = self._sizes()
        used = sum(size for _time, size, _path in found)
        for _time, size, path in sorted(found):
            if used + wanted <= self.limit:
                break
            if size and self._remove_unused(path):
                used -= size
        return used

    def _sizes(self) -> list[tuple[int, int, str]]:
        """Return (time last opened or written, bytes, path) of each file."""
        found = []
        for entry in self._files():
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                found.append((about.st_mtime_ns, about.st_blocks * 512, entry.path))
        return found

    def _remove_unused(self, path: str) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        try:
            if not _is_ours(os.pread(descriptor, len(MAGIC), 0)):
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed while locked: a process that has just opened it notices once it gets the lock.
            self.drop(path)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _files(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                return [entry for entry in entries if _NAME.fullmatch(entry.name)]
        except FileNotFoundError:
            return []

    def count(self, saved: int) -> None:
        """Record a download that got `saved` bytes from this directory."""
        with guarded(), self._index() as index:
            index.downloads += 1
            index.saved += saved
            index.save()

    def usage(self) -> Usage:
        """Return what the directory holds and has saved."""
        with guarded():
            used = sum(size for _time, size, _path in self._sizes())
            if not os.path.exists(os.path.join(self.path, _INDEX_NAME)):
                return Usage(used, self.limit, 0, 0)
            with self._index() as index:
                return Usage(used, self.limit, index.downloads, index.saved)

    @contextlib.contextmanager
    def _index(self) -> Iterator[_Index]:
        """Lock the index of the directory within the block."""
        path = os.path.join(self.path, _INDEX_NAME)
        descriptor = open_shared(path, 0o600)
        try:
            self._wait_for(descriptor)
            yield _Index(descriptor, self.limit)
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        limit = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Its holder may have been stopped for good.
                if time.monotonic() > limit:
                    raise
                time.sleep(_PAUSE)
            else:
                return


class _Index:
    """The index of a directory; if unreadable, it is rebuilt from the files."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        # Assume it is full: the first reserve() then looks at the files.
        self.used, self.downloads, self.saved = limit, 0, 0
        data = os.pread(descriptor, _INDEX.size, 0)
        if not _is_ours(data[: len(MAGIC)]):
            raise SharingError(f"its file {_INDEX_NAME} belongs to somebody else")
        if len(data) == _INDEX.size and data.startswith(MAGIC):
            _magic, self.used, self.downloads, self.saved = _INDEX.unpack(data)

    def save(self) -> None:
        record = _INDEX.pack(MAGIC, self.used, self.downloads, self.saved)
        write_all(self._descriptor, record, 0)


def _is_ours(beginning: bytes) -> bool:
    """Tell whether a file that begins with these bytes was made here; others must not be touched.

    A crash of the machine may leave zeros, or nothing.
    """
    return MAGIC.startswith(beginning) or not any(beginning)


def _name_prefix(uri: str) -> str:
    """Return the prefix of an image's file names, which must not reveal its location."""
    return _digest(uri).hex()[:32]


def _digest(text: str) -> bytes:
    # The path of a file need not be UTF-8.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
