# SPDX-License-Identifier: Apache-2.0
"""Writes one image file, which has no name until it is complete and on the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import logging
import os
import secrets
import threading
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.filesystem import syscalls
from glance_store._drivers.filesystem.datadirs import DataDir, DataDirs, check_mount, free_bytes
from glance_store._drivers.filesystem.openfile import exclusive_file
from glance_store.i18n import _
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"
# Written data goes to the disk in steps of this many bytes, instead of all at the end.
_WRITEBACK_STEP = 8 * 1024 * 1024


class WriteSettings(NamedTuple):
    """What the options of the store say about writing."""

    block_size: int
    thin: bool
    fsync: bool
    file_perm: int


class _Unnamed(NamedTuple):
    """A file without its final name, in an open directory; `partial` where it needs some name."""

    directory: int
    file: int
    partial: str | None


@functools.cache
def _has_proc() -> bool:
    """Tell whether a file without a name can be given one here."""
    return os.path.isdir("/proc/self/fd")


def _create(datadir: DataDir) -> _Unnamed:
    """Open a directory and a new file in it."""
    try:
        directory = os.open(datadir.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        check_mount(datadir)
        raise
    try:
        # Of what is open now: from here on a new mount changes nothing.
        check_mount(datadir, directory)
        try:
            if _has_proc():
                flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
                return _Unnamed(directory, os.open(".", flags, 0o666, dir_fd=directory), None)
        except OSError as exc:
            if exc.errno not in syscalls.UNSUPPORTED:
                raise
        partial = f".glance_store-{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return _Unnamed(directory, os.open(partial, flags, 0o666, dir_fd=directory), partial)
    except BaseException:
        os.close(directory)
        raise


def _publish(directory: int, file: int, partial: str | None, name: str) -> None:
    """Give a file its final name, unless that is taken (FileExistsError)."""
    if partial is None:
        source, follow = f"/proc/self/fd/{file}", True
    else:
        source, follow = partial, False
    try:
        # src_dir_fd makes Python use linkat(), which alone can follow the link to the open file.
        os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=follow)
    except OSError as exc:
        no_links = syscalls.UNSUPPORTED | {errno.EPERM, errno.EMLINK}
        if partial is None or exc.errno not in no_links:
            raise
        _rename(directory, partial, name)
        return
    if partial is not None:
        with contextlib.suppress(FileNotFoundError):
            # An abort of this very upload may have been quicker.
            os.unlink(partial, dir_fd=directory)


def _rename(directory: int, partial: str, name: str) -> None:
    """Publish where the file system has no hard links."""
    try:
        syscalls.rename_exclusive(partial, name, directory)
    except OSError as exc:
        if exc.errno not in syscalls.UNSUPPORTED:
            raise
        # Neither links nor exclusive renames: the lock keeps the other uploads of this host out.
        fcntl.flock(directory, fcntl.LOCK_EX)
        try:
            if _exists(directory, name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
            os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            fcntl.flock(directory, fcntl.LOCK_UN)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
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

    _held = False  # whether there is something to discard
    _committed = False

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
        self._length = 0  # of the file so far
        self._writeback = 0  # bytes handed to the disk so far
        self._state = threading.Lock()
        self._partial: str | None = None
        self._process = os.getpid()
        self._published = False
        self._aborted = False
        existing = guard.call(datadirs.find, name)
        if existing is not None:
            raise exceptions.Duplicate(image=existing)
        directory = guard.call(datadirs.choose, size)
        self.path = directory.file(name)
        try:
            with syscalls.writing(self.path):
                guard.call(self._begin, directory)
            if size > settings.block_size and not settings.thin:
                self._set_space_aside(size)
        except BaseException:
            try:
                self.abort()
            except (OSError, exceptions.GlanceStoreException) as exc:
                LOG.warning("What is left of %s could not be removed: %s", self.path, exc)
            raise

    @property
    def uri(self) -> str:
        """The location of the image."""
        return f"file://{self.path}"

    def _begin(self, datadir: DataDir) -> None:
        created = _create(datadir)
        self._partial = created.partial
        self._file = exclusive_file(self._guard, created.file)
        self._directory = exclusive_file(self._guard, created.directory)
        with self._state:
            self._held = True
            too_late = self._aborted
        if too_late:
            self._discard()

    def _set_space_aside(self, size: int) -> None:
        """Find out that the disk is full before gigabytes have been written, not after."""
        free = self._file.call(free_bytes)
        if free < size:
            raise exceptions.StorageFull(
                _(
                    "There is no room for the image at %(path)s: it has %(size)d bytes, "
                    "%(free)d are free"
                ),
                path=self.path,
                size=size,
                free=free,
            )
        with syscalls.writing(self.path):
            try:
                self._file.call(syscalls.preallocate, size)
                self._length = size
            except OSError as exc:
                if exc.errno not in syscalls.UNSUPPORTED:
                    raise

    def write(self, offset: int, block: memoryview) -> None:
        """Write bytes at an offset."""
        # A call that hangs past its timeout still reads the block: it gets one of its own.
        data = bytes(block) if self._guard.timeout else block
        with syscalls.writing(self.path):
            self._file.call(_write_all, data, offset)
            end = offset + len(block)
            self._length = max(self._length, end)
            if self._settings.fsync and end - self._writeback >= _WRITEBACK_STEP:
                self._start_writeback(end)

    def _start_writeback(self, end: int) -> None:
        start, self._writeback = self._writeback, end
        try:
            self._file.call(syscalls.start_writeback, start, end - start)
        except OSError as exc:
            if exc.errno not in syscalls.UNSUPPORTED | {errno.ESPIPE}:
                raise

    def commit(self, size: int) -> None:
        """Flush the file, give it its name, and flush that."""
        with syscalls.writing(self.path):
            if self._length != size:
                # A hole at the end, or data that fell short of nothing: the exact length counts.
                self._file.call(os.ftruncate, size)
            if self._settings.file_perm > 0:
                self._set_permissions()
            if self._settings.fsync:
                self._file.call(os.fsync)
            self._file.call(self._link)
            if self._settings.fsync:
                self._directory.call(os.fsync)
            # A network file system may report only here that it could not take the data.
            self._file.close()
        # The directory stays open for abort(), should an interrupt come now.
        self._committed = True

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
        self._directory.run(self._link_in, file)

    def _link_in(self, directory: int, file: int) -> None:
        if len(self._datadirs.all) == 1:
            # Within one directory the file system itself sees to it that the name is new.
            _publish(directory, file, self._partial, self._name)
        else:
            with self._datadirs.publishing(self._name):
                _publish(directory, file, self._partial, self._name)
        with self._state:
            self._published = True
            too_late = self._aborted
        if too_late:
            # The link came back after its timeout: the upload has been reported as failed.
            self._remove(directory)

    def abort(self) -> None:
        """Remove the file, under whatever name it has; with a call still stuck, later."""
        # First of all: should an interrupt come now, __del__ removes it.
        self._committed = False
        stuck = not self._held or self._file.late or self._directory.late
        self._give_up(0 if stuck else self._guard.timeout)

    def __del__(self) -> None:
        # An interrupt came before the engine had the writer, or in abort().
        if self._held and not self._committed:
            self._give_up(0)

    def _give_up(self, wait: float) -> None:
        with self._state:
            self._aborted = True
        self._guard.cleanup(self._discard, wait=wait)

    def _discard(self) -> None:
        """Remove and close; a call that comes back later does so for itself."""
        if not self._held:
            return
        try:
            self._directory.run(self._remove)
        finally:
            self._held = False
            self._file.release()
            self._directory.release()

    def _remove(self, directory: int) -> None:
        if self._process != os.getpid():
            # The upload is that of the parent.
            return
        with self._state:
            names = [self._name] if self._published else []
        if self._partial is not None:
            names.append(self._partial)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
