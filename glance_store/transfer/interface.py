# SPDX-License-Identifier: Apache-2.0
"""The interfaces between the engine and a backend. To write a driver, read this file.

The engine reads the source, cuts blocks, hashes, checks sizes, finds zeros, bounds memory, and
cleans up. A backend only writes a block, publishes the image or discards it, and reads a range. It
translates its errors to `glance_store.exceptions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from glance_store.transfer.digest import Digests
    from glance_store.transfer.memory import Memory


class Extent(NamedTuple):
    """A part of an image that is all data or all hole (reads as zeros), in bytes."""

    offset: int
    length: int
    data: bool


class Unfinished(Protocol):
    """An image that is invisible under its final name until `commit`."""

    def commit(self, size: int) -> None:
        """Publish the image of `size` bytes. It is complete and durable when this returns.

        Raise Duplicate, and leave the existing image untouched, if another upload was first.
        """
        ...

    def abort(self) -> None:
        """Remove everything. Called once; an exception is logged, so as not to mask the first."""
        ...


@runtime_checkable
class ImageWriter(Unfinished, Protocol):
    """One upload. The image is invisible under its final name until `commit`.

    The engine calls `write` any number of times, then either `commit` or `abort`. If `commit`
    raises, `abort` follows. No `write` is running when either of them is called.
    """

    @property
    def block_size(self) -> int:
        """Bytes in each block but the last, before runs of zeros are cut out."""
        ...

    @property
    def concurrency(self) -> int:
        """Maximum number of `write` calls at once; with 1, they come strictly in order."""
        ...

    @property
    def holes(self) -> bool:
        """True if runs of zeros may be skipped, because the backend reads them back as zeros."""
        ...

    def write(self, offset: int, block: memoryview) -> None:
        """Store bytes at an offset. The block is reused after the call: copy what must be kept."""
        ...


class GrowingWriter(ImageWriter, Protocol):
    """A writer whose blocks grow with the image, because its backend limits their number."""

    def block_size_at(self, offset: int) -> int:
        """Return the size of the block that starts at an offset.

        :param offset: 0, or where the previous block ends
        :returns: bytes; at least `block_size`, the size of the first block
        """
        ...


class BoundedWriter(ImageWriter, Protocol):
    """A writer that sets how many blocks an upload may hold in memory.

    The default is `concurrency` + 2 blocks, or as many as fit 8 MiB if that is more. The limit for
    an upload is that number times `block_size`, in bytes. It does not count copies made by the
    writer, or data that the source delivers beyond what it was asked for.
    """

    @property
    def blocks_held(self) -> int:
        """Maximum blocks in memory, counted from before they are read; at least 2."""
        ...


class SharingWriter(ImageWriter, Protocol):
    """A writer whose blocks count against memory shared by all transfers of its store."""

    @property
    def memory(self) -> Memory:
        """The shared memory of the store."""
        ...


class DigestingWriter(ImageWriter, Protocol):
    """A writer that uses the digests of the image, such as its md5.

    The engine sets `digests` before the first write. They are complete when `commit` is called.
    """

    digests: Digests | None


class InterruptibleWriter(ImageWriter, Protocol):
    """A writer whose writes may wait a long time for the backend."""

    def interrupt(self) -> None:
        """Make writes running on other threads fail soon. `abort` follows."""
        ...


@runtime_checkable
class ImageReader(Protocol):
    """One stored image. `read_at` is safe from several threads."""

    @property
    def size(self) -> int | None:
        """Bytes of the image; None if the backend does not tell."""
        ...

    @property
    def concurrency(self) -> int:
        """Number of `read_at` calls to keep in flight; with 1, no thread is started.

        A download holds that many chunks in memory, besides the one the consumer has.
        """
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset; at least one byte before the end of the image."""
        ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield which parts of a range are data and which are holes, in order and without gaps.

        A backend that does not know its holes yields one extent of data.
        """
        ...

    def close(self) -> None:
        """Close the image. Called once, when no `read_at` is running."""
        ...


class VersionedReader(ImageReader, Protocol):
    """A reader that knows which version of an image is stored at its location."""

    @property
    def version(self) -> str | None:
        """Identifies the content, such as an entity tag; other bytes, other version. Or None."""
        ...


class InterruptibleReader(ImageReader, Protocol):
    """A reader whose reads may wait a long time for the backend."""

    def interrupt(self) -> None:
        """Make reads running on other threads fail soon. `close` follows."""
        ...


class Stream(Protocol):
    """A response of the backend, read by one thread."""

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes; at least one byte before the end."""
        ...

    def close(self) -> None:
        """Discard what was not read. May be called again; must not raise."""
        ...


class StreamingReader(ImageReader, Protocol):
    """A reader whose backend can send a long range in one response. Its images have no holes.

    The engine reads long ranges one after the other or several in parallel, whichever turns out to
    be faster. `concurrency` limits their number; with a `memory` (see `SharingWriter`), so does
    what is left of it.
    """

    @property
    def range_size(self) -> int:
        """Bytes of each parallel range; `concurrency` of them are held in memory."""
        ...

    def open_stream(self, offset: int, length: int) -> Stream:
        """Request exactly `length` bytes at an offset. Safe from several threads."""
        ...
