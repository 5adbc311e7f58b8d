# SPDX-License-Identifier: Apache-2.0
"""Winning the name of an image: what is at the name afterwards counts, not what a call answered.

A network file system repeats a request whose answer was lost. The repetition of a link that worked
fails with EEXIST, and other errors (EIO, ENOENT, ESTALE) do not say that nothing happened either.
The file under the name is ours when it is the inode that this upload has written.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
from typing import NamedTuple

from glance_store._drivers.filesystem import syscalls
from glance_store._drivers.filesystem.datadirs import DataDir

PARTIAL_SUFFIX = ".partial"

# Readable, should the bytes have to move to a file that can be given a name.
_UNNAMED = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_NAMED = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# The ways in which policies, sandboxes and odd file systems refuse an optional call; whether the
# image can be stored, the next way finds out.
_REFUSED = syscalls.UNSUPPORTED | {errno.EPERM, errno.EACCES}
_NO_UNNAMED_LINKS = _REFUSED | {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV}
_NO_LINKS = _REFUSED | {errno.EMLINK, errno.EXDEV}


class UnlinkableError(OSError):
    """A file without a name cannot be given one here."""


class NewFile(NamedTuple):
    """Descriptors of a file without its final name, and of the directory that it is in."""

    directory: int
    file: int


@functools.cache
def _has_proc() -> bool:
    """Tell whether a file without a name can be given one here."""
    return os.path.isdir("/proc/self/fd")


class Claim:
    """One upload's claim to the name of an image.

    :param datadir: where the image goes
    :param name: of the file
    """

    __slots__ = ("_datadir", "_identity", "_name", "_partial", "_withdrawn", "_won")

    def __init__(self, datadir: DataDir, name: str) -> None:
        self._datadir = datadir
        self._name = name
        self._partial: str | None = None  # what the file is called before it has its name
        self._identity: tuple[int, int] | None = None  # of the file, once it may have its name
        self._won: list[None] = []  # whoever takes it out need not look whose the name is
        self._withdrawn = False

    def create(self, unnamed: bool = True) -> NewFile:
        """Open the data directory and a new file in it.

        :param unnamed: without a name where that is possible
        :raises StorageWriteDenied: the file system of the directory is gone
        :raises OSError: the directory or the file cannot be opened
        """
        try:
            directory = syscalls.open_directory(self._datadir.path)
        except FileNotFoundError:
            self._datadir.check_mount()
            raise
        try:
            # Of what is open now: from here on a new mount changes nothing.
            self._datadir.check_mount(directory)
            return NewFile(directory, self._create_in(directory, unnamed))
        except BaseException:
            try:
                with contextlib.suppress(OSError):
                    self.withdraw(directory)
            finally:
                os.close(directory)
            raise

    def _create_in(self, directory: int, unnamed: bool) -> int:
        if unnamed and self._datadir.unnamed_files and _has_proc():
            try:
                return os.open(".", _UNNAMED, 0o666, dir_fd=directory)
            except OSError as exc:
                if exc.errno not in _REFUSED:
                    raise
        # Known before there is a file: an interrupt may come before its descriptor does.
        self._partial = f".glance_store-{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        file = os.open(self._partial, _NAMED, 0o666, dir_fd=directory)
        # As long as it is open, in whatever process: so it is known to be alive.
        syscalls.hold(file)
        if unnamed:
            self._datadir.unnamed_files = False
        return file

    def abandon(self, new: NewFile) -> None:
        """Close and remove a file that comes too late.

        :param new: from `create`
        """
        try:
            os.close(new.file)
        finally:
            try:
                self.withdraw(new.directory)
            finally:
                os.close(new.directory)

    def publish(self, directory: int, file: int, locked: bool = False) -> None:
        """Give the file its name.

        :param directory: descriptor
        :param file: descriptor
        :param locked: the caller holds the lock of the directory
        :raises FileExistsError: another file has the name
        :raises UnlinkableError: this file can get no name, one that has a name can
        :raises OSError: the file has not got its name
        """
        status = os.fstat(file)
        self._identity = status.st_dev, status.st_ino
        try:
            self._link(directory, file, locked)
        except OSError as exc:
            if not self._looks_ours(directory):
                if self._partial is None and exc.errno in _NO_UNNAMED_LINKS:
                    raise UnlinkableError(exc.errno, exc.strerror) from exc
                raise
        self._won.append(None)
        if self._withdrawn:
            # Under a name that was withdrawn before this answer there may be another's file by now.
            self._won.clear()
        if self._partial is not None:
            self._drop_partial(directory, self._partial)

    def _link(self, directory: int, file: int, locked: bool) -> None:
        if self._partial is None:
            source, follow = f"/proc/self/fd/{file}", True
        else:
            source, follow = self._partial, False
        try:
            # src_dir_fd makes Python use linkat(), which alone follows the link to the open file.
            os.link(
                source,
                self._name,
                src_dir_fd=directory,
                dst_dir_fd=directory,
                follow_symlinks=follow,
            )
        except OSError as exc:
            if self._partial is None or exc.errno not in _NO_LINKS:
                raise
            self._rename(directory, self._partial, locked)

    def _rename(self, directory: int, partial: str, locked: bool) -> None:
        """Publish where the file system has no hard links."""
        try:
            syscalls.rename_exclusive(partial, self._name, directory)
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise
            # Neither links nor exclusive renames: the lock keeps other uploads of this host out.
            held = not locked and self._datadir.lock(directory)
            try:
                if _exists(directory, self._name):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
                os.rename(partial, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            finally:
                if held:
                    syscalls.unlock(directory)

    def _looks_ours(self, directory: int) -> bool:
        """Tell whether the file got its name after all; False when nobody can tell."""
        try:
            return self._is_ours(directory)
        except OSError:
            return False

    def _is_ours(self, directory: int | None) -> bool:
        if self._identity is None:
            return False
        path = self._name if directory is not None else self._datadir.file(self._name)
        try:
            status = os.stat(path, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _drop_partial(self, directory: int, partial: str) -> None:
        try:
            os.unlink(partial, dir_fd=directory)
        except FileNotFoundError:
            # Renamed; or an abort of this very upload has been quicker.
            return
        except OSError as exc:
            # The image is there and whole; this is a second name, of which space is not the matter.
            self._datadir.warn("The temporary name %s cannot be removed: %s", partial, exc.strerror)

    def withdraw(self, directory: int | None) -> None:
        """Remove what this upload has put into the directory, under whatever name; never another's.

        :param directory: descriptor; None looks by path
        :raises OSError: it cannot be removed
        """
        self._withdrawn = True
        names = [] if self._partial is None else [self._partial]
        # By path another file system may be met: the inode alone counts there.
        if (directory is not None and self._take_win()) or self._is_ours(directory):
            names.insert(0, self._name)
        for name in names:
            path = name if directory is not None else self._datadir.file(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path, dir_fd=directory)

    def _take_win(self) -> bool:
        """Tell whether the name is known to be ours; to one caller, once."""
        try:
            self._won.pop()
        except IndexError:
            return False
        return True


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def prove_writable(datadir: DataDir) -> None:
    """Create a file in a data directory; it is gone again at once.

    :param datadir: the directory
    :raises StorageWriteDenied: its file system is gone
    :raises OSError: the file system refuses; the reason is its own
    """
    claim = Claim(datadir, "")
    claim.abandon(claim.create())


def prove_room(datadir: DataDir) -> None:
    """Write a block to the storage below a data directory; it is gone again at once.

    :param datadir: the directory
    :raises StorageWriteDenied: its file system is gone
    :raises OSError: the file system refuses; the reason is its own
    """
    claim = Claim(datadir, "")
    new = claim.create()
    try:
        os.pwrite(new.file, bytes(4096), 0)
        # Network file systems and quotas may refuse no earlier.
        datadir.flush_file(new.file)
    finally:
        claim.abandon(new)
