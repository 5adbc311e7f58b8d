# SPDX-License-Identifier: Apache-2.0
"""The data directories of a store: which there are, and which takes the next image."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from glance_store import exceptions
from glance_store._drivers.filesystem.mounts import MountGuard
from glance_store.i18n import _

LOG = logging.getLogger(__name__)


class DataDir(NamedTuple):
    """A directory for images and its priority; the highest is filled first."""

    path: str
    priority: int
    mount: MountGuard

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return self.path + name if self.path.endswith("/") else f"{self.path}/{name}"


def parse(values: list[str]) -> dict[str, int]:
    """Return {path: priority} of the option ``filesystem_store_datadirs``.

    :param values: each ``path`` or ``path:priority``
    :raises ValueError: the text says what is wrong with which value
    """
    result: dict[str, int] = {}
    for value in values:
        path, colon, number = value.rpartition(":")
        if not colon:
            path, number = value, "0"
        path = path.strip()
        if not path:
            raise ValueError(f"filesystem_store_datadirs has a value without a path: {value!r}")
        try:
            priority = int(number)
        except ValueError:
            raise ValueError(
                f"filesystem_store_datadirs: the priority in {value!r} is not a whole number"
            ) from None
        known = result.setdefault(path, priority)
        if known != priority:
            raise ValueError(
                f"filesystem_store_datadirs names {path} twice, with the priorities {known} and "
                f"{priority}"
            )
        if [name.rpartition(":")[0] or name for name in values].count(path) > 1:
            LOG.warning("filesystem_store_datadirs names %s more than once", path)
    return result


def prepare(path: str, file_perm: int) -> None:
    """Create a data directory if need be, and open it to those who may read its files.

    :param path: the directory
    :param file_perm: permission bits of image files, 0 to leave the directory alone
    :raises OSError: it cannot be created or written to; `strerror` says why
    """
    if not os.path.isdir(path):
        LOG.info("Data directory %s does not exist: creating it", path)
        os.makedirs(path, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    wanted = mode
    if file_perm & stat.S_IRWXO:
        wanted |= stat.S_IXOTH
    if file_perm & stat.S_IRWXG:
        wanted |= stat.S_IXGRP
    if wanted != mode:
        os.chmod(path, wanted)


def free_bytes(path: str) -> int:
    """Return the bytes that the user of this process may still write.

    :param path: a file or directory
    """
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_bsize


class DataDirs:
    """The data directories of one store, by priority.

    :param directories: {path: priority}, at least one
    :param require_mount: none of them may lie on the root file system
    """

    def __init__(self, directories: dict[str, int], require_mount: bool) -> None:
        by_priority = sorted(directories.items(), key=lambda item: -item[1])
        self.all = [
            DataDir(path, priority, MountGuard(path, require_mount))
            for path, priority in by_priority
        ]

    def check_mounts(self) -> None:
        """Refuse to go on when the file system of a directory has gone away.

        :raises StorageWriteDenied: it has
        """
        for directory in self.all:
            check_mount(directory)

    def choose(self, size: int) -> DataDir:
        """Return the directory for a new image.

        With several, it is the one with the most free space among those of the highest priority
        that have room for it.

        :param size: bytes of the image, 0 when unknown
        :raises StorageFull: none has room
        :raises StorageWriteDenied: the file system of one of several directories is gone
        """
        if len(self.all) == 1:
            return self.all[0]
        self.check_mounts()
        room = {directory.path: free_bytes(directory.path) for directory in self.all}
        fitting = [
            directory
            for directory in self.all
            if room[directory.path] >= size and room[directory.path] > 0
        ]
        if not fitting:
            raise exceptions.StorageFull(
                _("No data directory has room for %(size)d bytes: %(directories)s"),
                size=size,
                directories=", ".join(f"{path} has {free}" for path, free in room.items()),
            )
        return max(fitting, key=lambda directory: (directory.priority, room[directory.path]))

    def find(self, name: str) -> str | None:
        """Return the path of a file that is in one of the directories, None if it is in none."""
        for directory in self.all:
            path = directory.file(name)
            # No lexists(): it raises and catches an error for each image that is new.
            if os.access(path, os.F_OK, follow_symlinks=False):
                return path
        return None

    @contextlib.contextmanager
    def publishing(self, name: str) -> Iterator[None]:
        """Hold other uploads off while a name is published that must be new to all directories.

        :raises Duplicate: the name is taken
        """
        lock = os.open(self.all[0].path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.find(name) is not None:
                raise exceptions.Duplicate(image=name)
            yield
        finally:
            os.close(lock)


def check_mount(directory: DataDir, descriptor: int | None = None) -> None:
    """Refuse to go on when the file system of a directory has gone away.

    :param directory: the directory
    :param descriptor: the same, where it is open
    :raises StorageWriteDenied: it has
    """
    problem = directory.mount.problem(descriptor)
    if problem is not None:
        raise exceptions.StorageWriteDenied(
            _("Data directory %(path)s is not usable: %(problem)s"),
            path=directory.path,
            problem=problem,
        )
