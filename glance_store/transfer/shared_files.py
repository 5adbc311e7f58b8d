# SPDX-License-Identifier: Apache-2.0
"""A file in which the processes of a host share what they have read of an image.

It is sparse: a header, a record for each chunk, the chunks. A chunk counts when its record says so,
which is written after the data; the record has checksums, which are compared at each read. Whoever
fetches a chunk holds a lock on its number, whoever uses the file holds it flocked: both go with the
process that held them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence

MIB = 1024 * 1024
# Bytes of a chunk, which is fetched by one process, and of the parts that a checksum is of.
CHUNK = 8 * MIB
_PART = MIB
_ALIGNMENT = 4096
MAGIC = b"glance_store shared reads 1\0"
# What the file is of, and the bytes of the image.
_HEADER = struct.Struct("<28s32sQ")
_RECORD = struct.Struct(f"<I{CHUNK // _PART}I")
_MISSING, _DATA, _ZEROS = 0, 0x61746164, 0x6F72657A
# `struct flock` where file sizes have 64 bits: kind, whence, start, length, process.
_LOCK = struct.Struct("hhqqi4x")


class SharingError(Exception):
    """The directory, or a file in it, is of no use."""


class DamagedError(SharingError):
    """A file does not hold what it should."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Make a `SharingError` of what the file system raises."""
    try:
        yield
    except OSError as exc:
        raise SharingError(exc.strerror or str(exc)) from exc


def length_of(number: int, size: int) -> int:
    """Return the bytes of a chunk of an image with so many bytes."""
    return min(CHUNK, size - number * CHUNK)


class ChunkLock:
    """That this process fetches a chunk; let go of by `release`, or by the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others fetch the chunk. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # By name: a child that was forked meanwhile has the descriptor as well.
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, 0, 0))
            os.close(descriptor)


def _lock(kind: int, start: int, length: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, start, length, 0)


class ImageFile:
    """The chunks of one image that are there. Safe from several threads.

    :param descriptor: of the file, which becomes this object's
    :param path: of the file
    :param size: bytes of the image, more than 0
    """

    def __init__(self, descriptor: int, path: str, size: int) -> None:
        self._descriptor = descriptor
        self.path = path
        self.size = size
        self.chunks = -(-size // CHUNK)
        end = _HEADER.size + self.chunks * _RECORD.size
        self._data = -(-end // _ALIGNMENT) * _ALIGNMENT
        # Reentrant: the collector may close a download in a thread that has it.
        self._lock = threading.RLock()
        self._users = 0
        self._closing = False

    def prepare(self, key: bytes) -> None:
        """Write the header if the file is new, else compare it.

        :param key: 32 bytes that tell the image and its version from all others
        :raises DamagedError: the file is of something else
        """
        header = _HEADER.pack(MAGIC, key, self.size)
        found = os.pread(self._descriptor, _HEADER.size, 0)
        if not found:
            # Another process may do the same: it writes the same.
            write_all(self._descriptor, header, 0)
        elif found != header:
            raise DamagedError("it is not that of this image")
        if os.fstat(self._descriptor).st_size < self._data + self.size:
            os.ftruncate(self._descriptor, self._data + self.size)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Give the descriptor, which stays open meanwhile.

        :raises SharingError: this object is closed, or the file system fails meanwhile
        """
        with self._lock:
            if self._closing:
                raise SharingError("the download was closed")
            self._users += 1
        try:
            with guarded():
                yield self._descriptor
        finally:
            with self._lock:
                self._users -= 1
            self._end()

    def close(self) -> None:
        """Let go of the file when nobody reads or writes any more. May be called again."""
        with self._lock:
            self._closing = True
        self._end()

    def _end(self) -> None:
        with self._lock:
            if not self._closing or self._users or self._descriptor < 0:
                return
            descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _record(self, descriptor: int, number: int) -> tuple[int, ...]:
        record = os.pread(descriptor, _RECORD.size, _HEADER.size + number * _RECORD.size)
        if len(record) != _RECORD.size:
            raise DamagedError("it was cut short")
        return _RECORD.unpack(record)

    def has(self, number: int) -> bool:
        """Tell whether a chunk is there.

        :raises SharingError: the file system fails
        :raises DamagedError: the file was cut short
        """
        with self.opened() as descriptor:
            return self._record(descriptor, number)[0] in (_DATA, _ZEROS)

    def lock(self, number: int) -> ChunkLock | None:
        """Become the one who fetches a chunk; None while another one is.

        :raises SharingError: the file system fails, or has no such locks
        """
        with self.opened() as opened:
            # A lock belongs to whoever opened the file, not to a process: each is opened anew.
            descriptor = os.open(f"/proc/self/fd/{opened}", os.O_RDWR | os.O_CLOEXEC)
            lock = ChunkLock(descriptor)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, number, 1))
            except (BlockingIOError, PermissionError):
                lock.release()
                return None
            except BaseException:
                lock.release()
                raise
            return lock

    def allocate(self, number: int) -> None:
        """Take the room of a chunk.

        :raises SharingError: there is none
        """
        with self.opened() as descriptor:
            place = self._data + number * CHUNK
            os.posix_fallocate(descriptor, place, length_of(number, self.size))

    def write(self, number: int, parts: Sequence[bytes]) -> None:
        """Note a chunk.

        :param number: of the chunk
        :param parts: its bytes, in parts of any length
        :raises SharingError: the file system fails
        """
        sums, place = [], self._data + number * CHUNK
        with self.opened() as descriptor:
            for block in _in_blocks(parts):
                sums.append(zlib.crc32(block))
                write_all(descriptor, block, place)
                place += len(block)
            self._note(descriptor, number, _DATA, sums)

    def write_zeros(self, number: int) -> None:
        """Note that a chunk is nothing but zeros: it takes no room.

        :raises SharingError: the file system fails
        """
        with self.opened() as descriptor:
            self._note(descriptor, number, _ZEROS, [])

    def _note(self, descriptor: int, number: int, state: int, sums: list[int]) -> None:
        sums = sums + [0] * (CHUNK // _PART - len(sums))
        record = _RECORD.pack(state, *sums)
        write_all(descriptor, record, _HEADER.size + number * _RECORD.size)

    def read(self, offset: int, length: int) -> bytes | None:
        """Read bytes of one chunk; None when it is not there.

        :param offset: first byte, in the image
        :param length: how many; not beyond the end of the chunk
        :raises SharingError: the file system fails
        :raises DamagedError: what is there are not the bytes that were written
        """
        number = offset // CHUNK
        with self.opened() as descriptor:
            state, *sums = self._record(descriptor, number)
            if state == _ZEROS:
                return bytes(length)
            if state != _DATA:
                return None
            # Whole parts, as far as they go: the checksums are of these.
            first = offset - offset % _PART
            end = min(-(-(offset + length) // _PART) * _PART, self.size, (number + 1) * CHUNK)
            data = os.pread(descriptor, end - first, self._data + first)
        if len(data) != end - first:
            raise DamagedError("it was cut short")
        view = memoryview(data)
        part = (first - number * CHUNK) // _PART
        for position in range(0, len(view), _PART):
            if zlib.crc32(view[position : position + _PART]) != sums[part + position // _PART]:
                raise DamagedError(
                    f"the bytes at {first + position} of the image are not those written"
                )
        if len(data) == length:
            return data
        return data[offset - first : offset - first + length]


def _in_blocks(parts: Sequence[bytes]) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the same bytes in blocks that a checksum is of, without copying where that is so."""
    rest = bytearray()
    for part in parts:
        view = memoryview(part)
        if rest:
            missing = _PART - len(rest)
            rest += view[:missing]
            view = view[missing:]
            if len(rest) < _PART:
                continue
            yield rest
            rest = bytearray()
        while len(view) >= _PART:
            yield view[:_PART]
            view = view[_PART:]
        rest += view
    if rest:
        yield rest


def write_all(descriptor: int, data: bytes | bytearray | memoryview, place: int) -> None:
    """Write all bytes at a place in a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written
