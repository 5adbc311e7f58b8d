# SPDX-License-Identifier: Apache-2.0
"""Writes one image file, which has no name until it is complete and on the disk."""

from __future__ import annotations

import errno
import logging
import os
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.filesystem import metadata, syscalls
from glance_store._drivers.filesystem.claim import Claim, UnlinkableError
from glance_store._drivers.filesystem.datadirs import DataDir, DataDirs, free_bytes
from glance_store._drivers.filesystem.guard import (
    CallGuard,
    DirectFile,
    GuardedFile,
    exclusive_file,
)
from glance_store.i18n import _
from glance_store.transfer import sparse

LOG = logging.getLogger(__name__)

# Written data goes to the disk in steps of this many bytes, instead of all at the end.
_WRITEBACK_STEP = 8 * 1024 * 1024
# What file systems and sandboxes answer to calls that only help.
_NOT_HERE = syscalls.UNSUPPORTED | {errno.ESPIPE, errno.EPERM}

# An upload without any file yet.
_CLOSED = DirectFile(-1)


class WriteSettings(NamedTuple):
    """What the options of the store say about writing."""

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
    """A `StoreWriter` into one of the data directories.

    :param datadirs: where to; the directory is chosen here
    :param name: final name of the file
    :param size: bytes, 0 when unknown
    :param settings: how to write
    :param guard: bounds the time of calls
    :raises Duplicate: the name is taken
    :raises StorageFull: no room for `size` bytes
    :raises StorageWriteDenied: no permission, or the file system under the directory is gone
    :raises TimeoutError: the file system does not answer
    """

    # One writer at a time keeps the file contiguous, and the kernel serializes writes to it anyway.
    concurrency = 1

    def __init__(
        self,
        datadirs: DataDirs,
        name: str,
        size: int,
        settings: WriteSettings,
        guard: CallGuard,
    ) -> None:
        self._datadirs = datadirs
        self._name = name
        self._settings = settings
        self._guard = guard
        self.block_size = settings.block_size
        self.holes = settings.thin
        self.metadata: dict[str, Any] = {}
        self._aborted = False
        self._directory: GuardedFile | DirectFile = _CLOSED
        self._file: GuardedFile | DirectFile = _CLOSED
        existing = datadirs.find(name)
        if existing is not None:
            raise exceptions.Duplicate(image=existing)
        first, *others = datadirs.candidates(size)
        self._use(first)
        try:
            self._begin(others, size)
        except BaseException:
            self._give_up()
            raise

    @property
    def uri(self) -> str:
        """The location of the image."""
        return f"file://{self.path}"

    def _use(self, directory: DataDir) -> None:
        self._datadir = directory
        self._claim = Claim(directory, self._name)
        self.path = directory.file(self._name)
        self._length = 0  # of the file so far
        self._writeback = 0  # bytes handed to the disk so far
        if self._settings.storage:
            self.metadata = metadata.for_path(self._settings.storage, self.path)

    def _begin(self, others: list[DataDir], size: int) -> None:
        """Begin to write into the directory in use, else into one of the others."""
        for other in others:
            try:
                self._begin_here(size)
            except (OSError, exceptions.GlanceStoreException) as exc:
                self._give_up()
                self._datadir.take_out(exc)
                self._use(other)
            else:
                return
        self._begin_here(size)

    def _begin_here(self, size: int) -> None:
        with syscalls.writing(self.path):
            self._open()
            if size > self.block_size and not self._settings.thin:
                self._set_space_aside(size)
        self._datadir.put_back()

    def _give_up(self) -> None:
        """Leave nothing in the directory in use."""
        try:
            self._discard()
        except (OSError, exceptions.GlanceStoreException) as exc:
            LOG.warning("What is left of %s could not be removed: %s", self.path, exc)

    def _open(self, unnamed: bool = True) -> None:
        created = self._guard.call(self._claim.create, unnamed, late=self._claim.abandon)
        self._directory = exclusive_file(self._guard, created.directory)
        self._file = exclusive_file(self._guard, created.file)

    def _set_space_aside(self, size: int) -> None:
        """Find out that the disk is full before gigabytes have been written, not after."""
        free = self._file.call(free_bytes)
        if free is not None and free < size:
            raise exceptions.StorageFull(
                _(
                    "There is no room for the image at %(path)s: it has %(size)d bytes, "
                    "%(free)d are free"
                ),
                path=self.path,
                size=size,
                free=free,
            )
        try:
            self._file.call(syscalls.preallocate, size)
            self._length = size
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise

    def write(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        # A call that hangs past its timeout still reads the block: it gets one of its own.
        data = bytes(block) if self._guard.timeout else block
        with syscalls.writing(self.path):
            self._file.call(_write_all, data, offset)
            end = offset + len(block)
            if end > self._length:
                self._length = end
            if self._settings.fsync and end - self._writeback >= _WRITEBACK_STEP:
                self._start_writeback(end)

    def _start_writeback(self, end: int) -> None:
        start, self._writeback = self._writeback, end
        try:
            self._file.call(syscalls.start_writeback, start, end - start)
        except OSError as exc:
            if exc.errno not in _NOT_HERE:
                raise

    def commit(self, size: int) -> None:
        """Flush the file, give it its name, and flush that."""
        with syscalls.writing(self.path):
            self._complete(size)
            try:
                self._file.call(self._link)
            except UnlinkableError as exc:
                self._copy(size)
                self._file.call(self._link)
                self._datadir.unnamed_files = False
                self._datadir.warn("a file without a name cannot be given one: %s", exc.strerror)
            if self._settings.fsync:
                self._directory.call(self._datadir.flush_names)
            # A network file system may report only here that it could not take the data.
            self._file.close()
        self._directory.close()

    def _complete(self, size: int) -> None:
        """Bring the file to its final form, all of it to the disk."""
        if self._length != size:
            # A hole at the end, or data that fell short of nothing: the exact length counts.
            self._file.call(os.ftruncate, size)
        if self._settings.file_perm > 0:
            self._set_permissions()
        if self._settings.fsync:
            self._file.call(self._datadir.flush_file)

    def _copy(self, size: int) -> None:
        """Move the bytes to a file that has a name already; the source is not read again."""
        unnamed, directory = self._file, self._directory
        try:
            self._open(unnamed=False)
            self._length = self._writeback = 0
            for offset in range(0, size, self.block_size):
                block = unnamed.call(os.pread, min(self.block_size, size - offset), offset)
                runs = sparse.data_runs(block) if self.holes else [(0, len(block))]
                for start, end in runs:
                    self.write(offset + start, memoryview(block)[start:end])
            self._complete(size)
        finally:
            unnamed.close()
            directory.close()

    def _set_permissions(self) -> None:
        try:
            self._file.call(os.fchmod, self._settings.file_perm)
        except OSError as exc:
            LOG.warning(
                "Image %s is stored, but filesystem_store_file_perm %o cannot be set: %s",
                self.path,
                self._settings.file_perm,
                exc.strerror,
            )

    def _link(self, file: int) -> None:
        # One call, so that the directory stays open until all of it is done, however late.
        self._directory.call_unguarded(self._link_in, file)

    def _link_in(self, directory: int, file: int) -> None:
        if len(self._datadirs.all) == 1:
            # Within one directory the file system itself sees to it that the name is new.
            self._claim.publish(directory, file)
        else:
            with self._datadirs.publishing(self._name):
                self._claim.publish(directory, file, locked=True)
        if self._aborted:
            # The link came back after its timeout: the upload has been reported as failed.
            self._claim.withdraw(directory)

    def abort(self) -> None:
        """Remove the file, under whatever name it has."""
        # First: a link that is under way looks at it when it has its name.
        self._aborted = True
        self._discard()

    def _discard(self) -> None:
        try:
            self._withdraw()
        except Exception:
            raise
        except BaseException:
            # A second interrupt: what has been begun is finished all the same.
            self._withdraw()
            raise
        finally:
            try:
                self._file.close()
            finally:
                self._directory.close()

    def _withdraw(self) -> None:
        try:
            self._directory.call(self._claim.withdraw)
        except (OSError, ValueError):
            # The directory is not open yet, or no more, or its handle is stale.
            self._guard.call(self._claim.withdraw, None)
