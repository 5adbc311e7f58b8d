# SPDX-License-Identifier: Apache-2.0
"""The two small interfaces between the engine and a backend. A driver author reads this file.

The engine reads the source, cuts blocks, hashes, checks sizes, finds zeros, bounds memory, and
cleans up. A backend says only how it writes a block, makes the image final, throws it away, and
reads a range. Errors are exceptions of `glance_store.exceptions`, translated by the backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from glance_store.transfer.digest import Digests
    from glance_store.transfer.memory import Memory


class Extent(NamedTuple):
    """A part of an image, in bytes, that is all data or all hole (reads as zeros)."""

    offset: int
    length: int
    data: bool


class Unfinished(Protocol):
    """An image that is invisible under its final name until `commit`."""

    def commit(self, size: int) -> None:
        """Make the image of `size` bytes final: complete and durable when this returns.

        Raises Duplicate, with the existing image untouched, when another upload was first.
        """
        ...

    def abort(self) -> None:
        """Leave nothing behind. Called once; what it raises is logged, the first error is kept."""
        ...


@runtime_checkable
class ImageWriter(Unfinished, Protocol):
    """One image on its way in. Invisible under its final name until `commit`.

    The engine calls `write` any number of times, then exactly one of `commit` and `abort`. When
    `commit` raises, `abort` is called after it. No `write` runs while either of them does.
    """

    @property
    def block_size(self) -> int:
        """Bytes in every block but the last, before zero runs are cut out of it."""
        ...

    @property
    def concurrency(self) -> int:
        """How many `write` calls may run at once; 1: strictly in order, one after the other."""
        ...

    @property
    def holes(self) -> bool:
        """True: zero runs may be left out, the backend reads them back as zeros."""
        ...

    def write(self, offset: int, block: memoryview) -> None:
        """Store bytes at an offset. The block may not be kept after the call returns."""
        ...


class GrowingWriter(ImageWriter, Protocol):
    """A writer whose blocks grow as the image does: its backend takes a limited number of them."""

    def block_size_at(self, offset: int) -> int:
        """Return the bytes of the block that begins at an offset.

        :param offset: bytes; 0, or where the block before ends
        :returns: bytes, at least `block_size`, which is that of the first block
        """
        ...


class BoundedWriter(ImageWriter, Protocol):
    """A writer that says how many blocks an upload may hold in memory.

    Other writers get `concurrency` + 2 blocks, or as many as fit 8 MiB if these are more. The bound
    is bytes: that many times `block_size`, for each upload. It does not count a portion of the
    source that is longer than was asked for, nor copies that the writer makes.
    """

    @property
    def blocks_held(self) -> int:
        """Maximum blocks in memory, from before they are read until written; at least 2."""
        ...


class SharingWriter(ImageWriter, Protocol):
    """A writer whose blocks count against the memory that all transfers of its store share."""

    @property
    def memory(self) -> Memory:
        """That of the store."""
        ...


class DigestingWriter(ImageWriter, Protocol):
    """A writer that can use the digests of the image, such as its md5.

    The engine sets `digests` before the first write. When `commit` is called they are complete.
    """

    digests: Digests | None


class InterruptibleWriter(ImageWriter, Protocol):
    """A writer whose writes may wait long for their backend."""

    def interrupt(self) -> None:
        """Have the writes that run in other threads end soon, with an error; `abort` follows."""
        ...


@runtime_checkable
class ImageReader(Protocol):
    """One stored image. `read_at` is safe from several threads."""

    @property
    def size(self) -> int | None:
        """Bytes of the image; None when the backend does not say."""
        ...

    @property
    def concurrency(self) -> int:
        """How many `read_at` calls are worth having in flight; 1: no thread is started.

        A download holds so many chunks in memory, and the one that the consumer has.
        """
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset.

        May return less than asked, but not nothing unless the image ends there.
        """
        ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say which parts of a range are data and which are holes, in order, without gaps.

        A backend that cannot know yields one extent of data.
        """
        ...

    def close(self) -> None:
        """Let go of the image. Called once; no `read_at` runs at that time."""
        ...


class VersionedReader(ImageReader, Protocol):
    """A reader that knows what tells the bytes of its image from others at the same place."""

    @property
    def version(self) -> str | None:
        """Such as an entity tag; equal for equal bytes alone. None when it is not known."""
        ...


class InterruptibleReader(ImageReader, Protocol):
    """A reader whose reads may wait long for their backend."""

    def interrupt(self) -> None:
        """Have the reads that run in other threads end soon, with an error; `close` follows."""
        ...


class Stream(Protocol):
    """An answer of a backend that is being read, by one thread."""

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, at least one before the end."""
        ...

    def close(self) -> None:
        """Let go of what was not read. May be called again, and raises nothing."""
        ...


class StreamingReader(ImageReader, Protocol):
    """A reader whose backend can send a long range in one go; its images have no holes.

    The engine asks for long ranges one after the other, or for some side by side, whatever turns
    out to be faster. `concurrency` is how many at most; with a `memory` (see `SharingWriter`) fewer
    where that is in use.
    """

    @property
    def range_size(self) -> int:
        """Bytes of the ranges that are asked for side by side; `concurrency` of them are held."""
        ...

    def open_stream(self, offset: int, length: int) -> Stream:
        """Ask for exactly `length` bytes at an offset. Safe from several threads."""
        ...
