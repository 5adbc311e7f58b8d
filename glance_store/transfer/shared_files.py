# SPDX-License-Identifier: Apache-2.0
"""A file in which the processes of a host share what they have read of an image.

It is a sparse file: a header, a record for each chunk, the chunks. A chunk is valid once its record
says so; the record is written after the data, and its checksums are verified on every read. The
process that fetches a chunk locks the byte with its number, and every user of the file holds a
flock. Both locks end with their process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from glance_store.transfer.digest import crc32c

MIB = 1024 * 1024
# A chunk is fetched by one process; a part has one checksum. In bytes.
CHUNK = 8 * MIB
PART = MIB
_ALIGNMENT = 4096
MAGIC = b"glance_store shared reads 1\0"
# Magic, key of the image, size of the image.
_HEADER = struct.Struct("<28s32sQ")
_RECORD = struct.Struct(f"<I{CHUNK // PART}I")
# What a record says of its chunk: of data, which checksum the parts have.
_CRC32, _CRC32C, _ZEROS = 0x61746164, 0x63746164, 0x6F72657A
# `struct flock` with 64-bit offsets: type, whence, start, length, pid.
_LOCK = struct.Struct("hhqqi4x")


class SharingError(Exception):
    """The directory, or a file in it, cannot be used."""


class DamagedError(SharingError):
    """A file does not contain what it should."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Translate errors of the file system to `SharingError`."""
    try:
        yield
    except OSError as exc:
        raise SharingError(exc.strerror or str(exc)) from exc


def length_of(number: int, size: int) -> int:
    """Return the length of a chunk of an image of `size` bytes."""
    return min(CHUNK, size - number * CHUNK)


def _checksum(state: int) -> Callable[[Any], int] | None:
    """Return the checksum of a chunk with data; None if this process cannot use the chunk."""
    return zlib.crc32 if state == _CRC32 else crc32c() if state == _CRC32C else None


class ChunkLock:
    """The right to fetch a chunk, until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others fetch the chunk. May be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Unlock explicitly: a child forked meanwhile still has the descriptor open.
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, 0, 0))
            os.close(descriptor)


def _lock(kind: int, start: int, length: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, start, length, 0)


class ImageFile:
    """The shared chunks of one image. Safe from several threads. Takes over the descriptor."""

    def __init__(self, descriptor: int, path: str, size: int) -> None:
        self._descriptor = descriptor
        self.path = path
        self.size = size
        self.chunks = -(-size // CHUNK)
        end = _HEADER.size + self.chunks * _RECORD.size
        self._data = -(-end // _ALIGNMENT) * _ALIGNMENT
        # Reentrant: the garbage collector may close a download on a thread that holds it.
        self._lock = threading.RLock()
        self._users = 0
        self._closing = False

    def prepare(self, key: bytes) -> None:
        """Write the header if the file is new, else verify it.

        :param key: 32 bytes that identify the image and its version
        """
        header = _HEADER.pack(MAGIC, key, self.size)
        found = os.pread(self._descriptor, _HEADER.size, 0)
        if not found:
            # Another process may do this at the same time, but writes the same bytes.
            write_all(self._descriptor, header, 0)
        elif found != header:
            raise DamagedError("the file belongs to another image")
        if os.fstat(self._descriptor).st_size < self._data + self.size:
            os.ftruncate(self._descriptor, self._data + self.size)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Keep the descriptor open within the block; translate errors of the file system."""
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
        """Close the file once nobody is reading or writing. May be called again."""
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
            raise DamagedError("the file is truncated")
        return _RECORD.unpack(record)

    def has(self, number: int) -> bool:
        """Tell whether a chunk is there, for this process: others may have another checksum."""
        with self.opened() as descriptor:
            state = self._record(descriptor, number)[0]
        return state == _ZEROS or _checksum(state) is not None

    def lock(self, number: int) -> ChunkLock | None:
        """Lock a chunk to fetch it; None if another download is fetching it."""
        with self.opened() as opened:
            # An OFD lock belongs to the open file, not to the process, so open it again.
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
        """Allocate the space of a chunk."""
        with self.opened() as descriptor:
            position = self._data + number * CHUNK
            os.posix_fallocate(descriptor, position, length_of(number, self.size))

    def write(self, number: int, parts: Sequence[bytes]) -> None:
        """Write a chunk, given in parts of any length."""
        sums, position = [], self._data + number * CHUNK
        fast = crc32c()
        checksum, state = (zlib.crc32, _CRC32) if fast is None else (fast, _CRC32C)
        with self.opened() as descriptor:
            for block in _in_blocks(parts):
                write_all(descriptor, block, position)
                # The write has brought the block into the processor's cache.
                sums.append(checksum(block))
                position += len(block)
            self._note(descriptor, number, state, sums)

    def write_zeros(self, number: int) -> None:
        """Record that a chunk is all zeros, which takes no space."""
        with self.opened() as descriptor:
            self._note(descriptor, number, _ZEROS, [])

    def _note(self, descriptor: int, number: int, state: int, sums: list[int]) -> None:
        sums = sums + [0] * (CHUNK // PART - len(sums))
        record = _RECORD.pack(state, *sums)
        write_all(descriptor, record, _HEADER.size + number * _RECORD.size)

    def read(self, offset: int, length: int) -> bytes | None:
        """Read bytes of one chunk; None if it is not there.

        :param offset: first byte, in the image
        :param length: number of bytes; must not go beyond the chunk
        :raises DamagedError: the checksums do not match
        """
        number = offset // CHUNK
        with self.opened() as descriptor:
            state, *sums = self._record(descriptor, number)
            if state == _ZEROS:
                return bytes(length)
            checksum = _checksum(state)
            if checksum is None:
                return None
            # Read whole parts, because each checksum covers one.
            first = offset - offset % PART
            end = min(-(-(offset + length) // PART) * PART, self.size, (number + 1) * CHUNK)
            data = os.pread(descriptor, end - first, self._data + first)
        if len(data) != end - first:
            raise DamagedError("the file is truncated")
        view = memoryview(data)
        part = (first - number * CHUNK) // PART
        for position in range(0, len(view), PART):
            if checksum(view[position : position + PART]) != sums[part + position // PART]:
                raise DamagedError(f"checksum mismatch at byte {first + position} of the image")
        if len(data) == length:
            return data
        return data[offset - first : offset - first + length]


def _in_blocks(parts: Sequence[bytes]) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the same bytes in blocks of one checksum each, without copying if possible."""
    rest = bytearray()
    for part in parts:
        view = memoryview(part)
        if rest:
            missing = PART - len(rest)
            rest += view[:missing]
            view = view[missing:]
            if len(rest) < PART:
                continue
            yield rest
            rest = bytearray()
        while len(view) >= PART:
            yield view[:PART]
            view = view[PART:]
        rest += view
    if rest:
        yield rest


def write_all(descriptor: int, data: bytes | bytearray | memoryview, position: int) -> None:
    """Write all bytes at a place in a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
