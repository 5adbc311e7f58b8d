# SPDX-License-Identifier: Apache-2.0
"""The local directory in which the processes of a host share what they have read of images."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from glance_store.transfer.shared_files import (
    MAGIC,
    DamagedError,
    ImageFile,
    SharingError,
    guarded,
    length_of,
    write_all,
)

# Bytes in use, downloads that were served from the directory, bytes that they got from it.
_INDEX = struct.Struct("<28sQQQ")
_INDEX_NAME = "index"
# Seconds to wait for the notes of the directory at most, and between two tries.
_PATIENCE = 2.0
_PAUSE = 0.005
_SUFFIX = ".image"


class Usage(NamedTuple):
    """What a directory of shared reads holds, and what it was good for."""

    used: int  # bytes
    limit: int  # bytes
    downloads: int  # that got at least a part of their bytes from it
    saved: int  # bytes that the backends did not have to send


class Folder:
    """A directory of such files, with a bound of what they take.

    :param path: the directory; made when it is missing
    :param limit: bytes that the files take at most
    """

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.trouble: str | None = None  # what was last complained about

    def open(self, place: str, version: str, size: int) -> ImageFile:
        """Open the file of an image, or make it.

        :param place: tells the image from all others
        :param version: tells its bytes from those that were there before, or may come
        :param size: bytes of the image, more than 0
        :raises SharingError: the file system fails
        :raises DamagedError: the file is not what it should be, and cannot be replaced
        """
        key = hashlib.sha256(f"{len(place)} {place} {version} {size}".encode()).digest()
        path = os.path.join(self.path, f"{_beginning(place)}-{key.hex()[:32]}{_SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        for _try in range(10):
            with guarded():
                os.makedirs(self.path, mode=0o700, exist_ok=True)
                file = ImageFile(os.open(path, flags, 0o600), path, size)
            try:
                with file.opened() as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                    if os.fstat(descriptor).st_nlink:
                        file.prepare(key)
                        # The least recently used go first.
                        os.utime(descriptor)
                        return file
                # It was removed before it was held.
                file.close()
            except DamagedError:
                file.close()
                self.drop(path)
            except BaseException:
                file.close()
                raise
        raise SharingError(f"{path} is removed again and again")

    def drop(self, path: str) -> None:
        """Remove a file; who uses it goes on with what it has.

        :raises SharingError: the file system fails
        """
        with guarded(), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def forget(self, place: str) -> None:
        """Remove what there is of an image, of whatever version.

        :raises SharingError: the file system fails
        """
        beginning = _beginning(place)
        with guarded():
            found = [entry.path for entry in self._files() if entry.name.startswith(beginning)]
        for path in found:
            self.drop(path)

    def reserve(self, file: ImageFile, number: int) -> bool:
        """Take the room of a chunk, if need be that of images which nobody has read for long.

        :returns: False when there is none: all that is there is in use
        :raises SharingError: the file system fails
        """
        wanted = length_of(number, file.size)
        with guarded(), self._index() as index:
            if index.used + wanted > self.limit:
                index.used = self._make_room(wanted)
            if index.used + wanted > self.limit:
                return False
            # First noted, then taken: who dies in between leaves less room, never more.
            index.used += wanted
            index.save()
            file.allocate(number)
        return True

    def _make_room(self, wanted: int) -> int:
        """Remove images that nobody uses, the least recently used first; return bytes in use."""
        found = self._sizes()
        used = sum(size for _time, size, _path in found)
        for _time, size, path in sorted(found):
            if used + wanted <= self.limit:
                break
            if size and self._remove_unused(path):
                used -= size
        return used

    def _sizes(self) -> list[tuple[int, int, str]]:
        """Return of each file when it was last opened or written to, its bytes, its path."""
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
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed while it is held: who has just opened it sees that when it gets it.
            self.drop(path)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _files(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                return [entry for entry in entries if entry.name.endswith(_SUFFIX)]
        except FileNotFoundError:
            return []

    def count(self, saved: int) -> None:
        """Note a download that got bytes from here.

        :param saved: how many
        :raises SharingError: the file system fails
        """
        with guarded(), self._index() as index:
            index.downloads += 1
            index.saved += saved
            index.save()

    def usage(self) -> Usage:
        """Tell what is here.

        :raises SharingError: the file system fails
        """
        with guarded():
            used = sum(size for _time, size, _path in self._sizes())
            if not os.path.exists(os.path.join(self.path, _INDEX_NAME)):
                return Usage(used, self.limit, 0, 0)
            with self._index() as index:
                return Usage(used, self.limit, index.downloads, index.saved)

    @contextlib.contextmanager
    def _index(self) -> Iterator[_Index]:
        """Give the notes of the directory, which are this thread's meanwhile."""
        path = os.path.join(self.path, _INDEX_NAME)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
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
                # Who has it may have been stopped, for ever.
                if time.monotonic() > limit:
                    raise
                time.sleep(_PAUSE)
            else:
                return


class _Index:
    """The notes of a directory; what cannot be read is made anew from the files."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        # As good as full: the first to want room looks at the files.
        self.used, self.downloads, self.saved = limit, 0, 0
        data = os.pread(descriptor, _INDEX.size, 0)
        if len(data) == _INDEX.size and data.startswith(MAGIC):
            _magic, self.used, self.downloads, self.saved = _INDEX.unpack(data)

    def save(self) -> None:
        record = _INDEX.pack(MAGIC, self.used, self.downloads, self.saved)
        write_all(self._descriptor, record, 0)


def _beginning(place: str) -> str:
    """Return how the names of an image's files begin: nothing of its location can be read there."""
    return hashlib.sha256(place.encode()).hexdigest()[:32]
