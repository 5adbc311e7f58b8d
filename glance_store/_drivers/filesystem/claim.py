# SPDX-License-Identifier: Apache-2.0
"""Claims the name of an image: what is at the name counts, not what a call returned.

A network file system repeats a request whose response was lost. The repeat of a successful link
fails with EEXIST, and other errors (EIO, ENOENT, ESTALE) do not mean that nothing happened. The
file at the name is ours if its inode is the one that this upload wrote.
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

# Readable, in case the bytes must move to a file that can be given a name.
_UNNAMED = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_NAMED = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# How policies, sandboxes and odd file systems refuse an optional call. The next way shows whether
# the image can be stored.
_REFUSED = syscalls.UNSUPPORTED | {errno.EPERM, errno.EACCES}
_NO_UNNAMED_LINKS = _REFUSED | {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV}
_NO_LINKS = _REFUSED | {errno.EMLINK, errno.EXDEV}


class UnlinkableError(OSError):
    """An unnamed file cannot be given a name here."""


class NewFile(NamedTuple):
    """The descriptors of a file without its final name, and of its directory."""

    directory: int
    file: int


@functools.cache
def _has_proc() -> bool:
    """Tell whether /proc is there, which unnamed files need to get a name."""
    return os.path.isdir("/proc/self/fd")


class Claim:
    """One upload's claim to the name of an image."""

    __slots__ = ("_datadir", "_identity", "_name", "_partial", "_withdrawn", "_won")

    def __init__(self, datadir: DataDir, name: str) -> None:
        self._datadir = datadir
        self._name = name
        self._partial: str | None = None  # the file's temporary name
        self._identity: tuple[int, int] | None = None  # the file's, once it may have its name
        self._won: list[None] = []  # one item once the name is ours; its taker need not check
        self._withdrawn = False

    def create(self, unnamed: bool = True) -> NewFile:
        """Open the data directory, and create a file in it, without a name if possible."""
        try:
            directory = syscalls.open_directory(self._datadir.path)
        except FileNotFoundError:
            self._datadir.check_mount()
            raise
        try:
            # Check the open directory: from here on, a new mount changes nothing.
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
        # Set before the file exists: an interrupt may come before its descriptor.
        self._partial = f".glance_store-{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        file = os.open(self._partial, _NAMED, 0o666, dir_fd=directory)
        # Locked while any process has it open, which shows that the upload is alive.
        syscalls.hold(file)
        if unnamed:
            self._datadir.unnamed_files = False
        return file

    def abandon(self, new: NewFile) -> None:
        """Close and remove a file that is not needed."""
        try:
            os.close(new.file)
        finally:
            try:
                self.withdraw(new.directory)
            finally:
                os.close(new.directory)

    def publish(self, directory: int, file: int, locked: bool = False) -> None:
        """Give the file its name.

        FileExistsError: another file has the name. UnlinkableError: only a named file can get it.
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
            # The name was withdrawn before this call returned: another upload may have it by now.
            self._won.clear()
        if self._partial is not None:
            self._drop_partial(directory, self._partial)

    def _link(self, directory: int, file: int, locked: bool) -> None:
        if self._partial is None:
            source, follow = f"/proc/self/fd/{file}", True
        else:
            source, follow = self._partial, False
        try:
            # src_dir_fd makes Python use linkat(): only that follows the link to the open file.
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
        """Publish on a file system without hard links."""
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
        """Tell whether the file got its name despite the error; False if unknown."""
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
            # Renamed, or an abort of this upload was quicker.
            return
        except OSError as exc:
            # The image is complete; this second name takes no space.
            self._datadir.warn("the temporary name %s cannot be removed: %s", partial, exc.strerror)

    def withdraw(self, directory: int | None) -> None:
        """Remove this upload's file under any of its names; without a descriptor, look by path."""
        self._withdrawn = True
        names = [] if self._partial is None else [self._partial]
        # A path may lead to another file system: there only the inode counts.
        if (directory is not None and self._take_win()) or self._is_ours(directory):
            names.insert(0, self._name)
        for name in names:
            path = name if directory is not None else self._datadir.file(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path, dir_fd=directory)

    def _take_win(self) -> bool:
        """Tell one caller, once, whether the name is known to be ours."""
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
    """Create a file in a data directory, and remove it at once."""
    claim = Claim(datadir, "")
    claim.abandon(claim.create())


def prove_room(datadir: DataDir) -> None:
    """Write a block to a data directory, and remove it at once."""
    claim = Claim(datadir, "")
    new = claim.create()
    try:
        os.pwrite(new.file, bytes(4096), 0)
        # Network file systems and quotas may not refuse before the flush.
        datadir.flush_file(new.file)
    finally:
        claim.abandon(new)
