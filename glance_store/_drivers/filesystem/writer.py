# SPDX-License-Identifier: Apache-2.0
"""Writes one image file, which has no name until it is complete and on disk."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.filesystem import metadata, syscalls
from glance_store._drivers.filesystem.claim import UnlinkableError
from glance_store._drivers.filesystem.datadirs import DataDir, DataDirs
from glance_store._drivers.filesystem.draft import Draft
from glance_store._drivers.filesystem.reader import FileReader
from glance_store.i18n import _
from glance_store.transfer import sparse
from glance_store.transfer.interface import Extent
from glance_store.transfer.retry import looks
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

# Start writing to disk every so many bytes, instead of all at the end.
_WRITEBACK_STEP = 8 * 1024 * 1024
# Errors of optional calls that file systems or sandboxes do not support.
_NOT_HERE = syscalls.UNSUPPORTED | {errno.ESPIPE, errno.EPERM}
# Bytes that the kernel copies per call; between calls the copy can be stopped.
_COPY_STEP = 64 * 1024 * 1024
# Errors that end an ordinary copy too. Others, such as EIO on CIFS, say that the kernel cannot.
_REAL = syscalls.FULL | syscalls.LOST


class WriteSettings(NamedTuple):
    """What the store's options say about writing."""

    block_size: int
    thin: bool
    fsync: bool
    file_perm: int
    storage: list[metadata.Entry]


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    if written == len(data):
        return
    with memoryview(data) as view:
        while written < len(view):
            written += os.pwrite(fd, view[written:], offset + written)


class FileWriter:
    """A `StoreWriter` into one of the data directories, which it chooses itself."""

    # One writer at a time keeps the file contiguous, and the kernel serializes writes to it anyway.
    concurrency = 1

    def __init__(
        self,
        datadirs: DataDirs,
        name: str,
        size: int,
        settings: WriteSettings,
        guard: Calls,
    ) -> None:
        self._datadirs = datadirs
        self._name = name
        self._settings = settings
        self._guard = guard
        self.block_size = settings.block_size
        self.holes = settings.thin
        self.metadata: dict[str, Any] = {}
        existing = datadirs.find(name)
        if existing is not None:
            raise exceptions.Duplicate(image=existing)
        with syscalls.writing(datadirs.all[0].file(name)):
            first, *others = datadirs.candidates(size)
        self._use(first)
        try:
            self._begin(others, size)
        except BaseException:
            self._give_up(self._draft)
            raise

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    def _use(self, directory: DataDir) -> None:
        self._datadir = directory
        self._draft = Draft(self._guard, directory, self._name)
        self.path = directory.file(self._name)
        self._length = 0  # bytes in the file so far
        self._writeback = 0  # bytes sent to the disk so far
        if self._settings.storage:
            self.metadata = metadata.for_path(self._settings.storage, self.path)

    def _begin(self, others: list[DataDir], size: int) -> None:
        """Begin writing in the chosen directory, else in one of the others."""
        for other in others:
            try:
                self._begin_here(size)
            except (OSError, exceptions.GlanceStoreException) as exc:
                self._give_up(self._draft)
                self._datadir.take_out(exc)
                self._use(other)
            else:
                return
        self._begin_here(size)

    def _begin_here(self, size: int) -> None:
        with syscalls.writing(self.path):
            self._draft.open()
            if size > self.block_size and not self._settings.thin:
                self._reserve_space(size)
        self._datadir.put_back()

    def _give_up(self, draft: Draft, wait: bool = True) -> None:
        """Remove a file that will not become the image."""
        try:
            draft.give_up(wait)
        except OSError as exc:
            LOG.warning("What is left of %s could not be removed: %s", self.path, exc)

    def _reserve_space(self, size: int) -> None:
        """Reserve the space: a full disk shows before gigabytes are written, not after."""
        try:
            # Where nothing can be reserved, free space proves nothing: ZFS may compress the image.
            self._draft.file.call(syscalls.preallocate, self.block_size)
            self._check_room(size)
            self._draft.file.call(syscalls.preallocate, size)
            self._length = size
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise

    def _check_room(self, size: int) -> None:
        """Raise before a reservation that cannot succeed takes what other uploads need."""
        for _look in looks(syscalls.ROOM_LAGS):
            free = self._draft.file.call(syscalls.free_bytes)
            if free is None or free + self.block_size >= size:
                return
        raise exceptions.StorageFull(
            _(
                "There is no room for the image at %(path)s: it needs %(size)d bytes, "
                "%(free)d are free"
            ),
            path=self.path,
            size=size,
            free=free,
        )

    def write(self, offset: int, block: memoryview) -> None:
        # A call that outlives its timeout still reads the block: give it a copy.
        data = bytes(block) if self._guard.timeout else block
        with syscalls.writing(self.path):
            self._draft.file.call(_write_all, data, offset)
            self._written(offset + len(block))

    def _written(self, end: int) -> None:
        if end > self._length:
            self._length = end
        if self._settings.fsync and end - self._writeback >= _WRITEBACK_STEP:
            self._start_writeback(end)

    def copy(self, source: FileReader, progress: Callable[[int], None]) -> bool:
        """Have the kernel copy an image file or share its blocks; False if it cannot.

        Holes stay holes, unless their space must be reserved. `progress` gets the bytes of each
        step.
        """
        # With a timeout, a step is no longer than a write.
        step = self.block_size if self._guard.timeout else _COPY_STEP
        extents: Iterable[Extent] = source.extents(0, source.size)
        if not self.holes and self._length < source.size:
            # The space for holes is not reserved: copy them too.
            extents = [Extent(0, source.size, True)]
        for extent in extents:
            offset, stop = extent.offset, extent.offset + extent.length
            while extent.data and offset < stop:
                length = self._copy_step(source, offset, min(step, stop - offset))
                if not length:
                    return False
                offset += length
                progress(length)
            progress(stop - offset)
        return True

    def _copy_step(self, source: FileReader, offset: int, length: int) -> int:
        """Copy up to `length` bytes; return how many, 0 if the kernel cannot."""
        with syscalls.writing(self.path):
            try:
                copied = self._draft.file.call(source.copy_to, offset, length)
            except OSError as exc:
                if exc.errno in _REAL:
                    raise
                return 0
            self._written(offset + copied)
            return copied

    def _start_writeback(self, end: int) -> None:
        start, self._writeback = self._writeback, end
        self._help(syscalls.start_writeback, start, end - start)

    def _help(self, function: Callable[[int, int, int], None], offset: int, length: int) -> None:
        """Call a function that a file system need not support."""
        try:
            self._draft.file.call(function, offset, length)
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise

    def commit(self, size: int) -> None:
        """Flush the file, give it its name, and flush the name."""
        with syscalls.writing(self.path):
            self._complete(size)
            try:
                self._draft.publish(self._datadirs)
            except UnlinkableError as exc:
                self._move(size)
                self._draft.publish(self._datadirs)
                self._datadir.unnamed_files = False
                self._datadir.warn("an unnamed file cannot be given a name: %s", exc.strerror)
            if self._settings.fsync:
                self._draft.directory.call(self._datadir.flush_names)
            # A network file system may report only here that it could not take the data.
            self._draft.file.close()
        self._draft.keep()

    def _complete(self, size: int) -> None:
        """Give the file its final length and permissions, and flush it."""
        if self._length != size:
            # The file may end in a hole that was never written, or beyond the image.
            self._draft.file.call(os.ftruncate, size)
        if self._settings.file_perm > 0:
            self._set_permissions()
        if self._settings.fsync:
            if self._guard.timeout:
                # To flush a large image may take longer than one call may.
                for offset in range(0, size, _WRITEBACK_STEP):
                    self._help(syscalls.finish_writeback, offset, _WRITEBACK_STEP)
            self._draft.file.call(self._datadir.flush_file)

    def _move(self, size: int) -> None:
        """Move the bytes to a file that already has a name; the source is not read again."""
        unnamed, self._draft = self._draft, Draft(self._guard, self._datadir, self._name)
        try:
            self._draft.open(unnamed=False)
            self._length = self._writeback = 0
            for offset in range(0, size, self.block_size):
                block = unnamed.file.call(os.pread, min(self.block_size, size - offset), offset)
                runs = sparse.data_runs(block) if self.holes else [(0, len(block))]
                for start, end in runs:
                    self.write(offset + start, memoryview(block)[start:end])
            self._complete(size)
        finally:
            # The upload goes on; it does not wait for clean-up.
            self._give_up(unnamed, wait=False)

    def _set_permissions(self) -> None:
        try:
            self._draft.file.call(os.fchmod, self._settings.file_perm)
        except OSError as exc:
            LOG.warning(
                "Image %s keeps its default permissions: filesystem_store_file_perm %o cannot "
                "be set: %s",
                self.path,
                self._settings.file_perm,
                exc.strerror,
            )

    def abort(self) -> None:
        """Remove the file, whatever its name; later if a call still hangs."""
        self._draft.give_up()
