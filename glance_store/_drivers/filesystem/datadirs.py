# SPDX-License-Identifier: Apache-2.0
"""The data directories of a store: which there are, and which takes the next image."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from glance_store import exceptions
from glance_store._drivers.filesystem import syscalls
from glance_store._drivers.filesystem.mounts import MountGuard
from glance_store.i18n import _
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# A list in one value, as other options take it: it would name one directory with an odd path.
_SEVERAL = re.compile(r"[,;]\s*/|:\s*-?[0-9]+\s+/")
# How file systems say that they cannot flush a directory. A file they can, or it is an error.
_NO_DIRECTORY_FLUSH = syscalls.UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM}


def parse(values: list[str]) -> dict[str, int]:
    """Return {path: priority} of the option ``filesystem_store_datadirs``.

    :param values: each ``path`` or ``path:priority``
    :raises ValueError: the text says what is wrong with which value
    """
    result: dict[str, int] = {}
    for value in values:
        if "://" in value or _SEVERAL.search(value):
            check_path("filesystem_store_datadirs", value.strip())
        path, colon, number = value.rpartition(":")
        if not colon:
            path, number = value, "0"
        path = path.strip()
        if not path:
            raise ValueError(f"filesystem_store_datadirs has a value without a path: {value!r}")
        check_path("filesystem_store_datadirs", path)
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


def check_path(option: str, path: str) -> None:
    """Refuse a path that names another directory for another process, or none.

    :param option: name of the option
    :param path: its value
    :raises ValueError: the text names both and says what is wrong
    """
    several = _SEVERAL.search(path)
    if path.startswith("/") and not several:
        return
    problem = "a relative path depends on the working directory of the process"
    if several:
        problem = "several take filesystem_store_datadirs once for each"
    elif "://" in path:
        problem = "this is a URI"
    elif path.startswith("~"):
        problem = "~ is not expanded"
    raise ValueError(f"{option} = {path}: {problem}; give the absolute path of a directory")


def prepare(path: str, file_perm: int) -> None:
    """Create a data directory if need be, and open it to those who may read its files.

    :param path: the directory
    :param file_perm: permission bits of image files, 0 to leave the directory alone
    :raises OSError: it cannot be created; `strerror` says why
    """
    if not os.path.isdir(path):
        LOG.info("Data directory %s does not exist: creating it", path)
        _make(path)
    wanted = 0
    if file_perm & stat.S_IRWXO:
        wanted |= stat.S_IXOTH
    if file_perm & stat.S_IRWXG:
        wanted |= stat.S_IXGRP
    if not wanted:
        return
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode | wanted == mode:
        return
    try:
        os.chmod(path, mode | wanted)
    except OSError as exc:
        # One may write to a directory that is somebody else's.
        LOG.warning(
            "Data directory %s keeps the permissions %o, with which filesystem_store_file_perm %o "
            "may not let others reach the images: %s",
            path,
            mode,
            file_perm,
            exc.strerror,
        )


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError as exists:
        # Said of a file, and of a symbolic link that leads nowhere.
        try:
            os.stat(path)
        except FileNotFoundError as exc:
            target = os.path.join(os.path.dirname(path), os.readlink(path))
            reason = f"it is a symbolic link to {target}: {exc.strerror}"
            raise FileNotFoundError(exc.errno, reason, path) from exc
        reason = f"{exists.strerror}, and it is not a directory"
        raise FileExistsError(exists.errno, reason, path) from exists


class DataDir:
    """A directory for images.

    :param path: absolute
    :param priority: the highest is filled first
    :param require_mount: it must not lie on the root file system
    :param file_perm: permission bits of image files, 0 for those of the umask
    """

    def __init__(
        self, path: str, priority: int = 0, require_mount: bool = False, file_perm: int = 0
    ) -> None:
        self.path = path
        self.priority = priority
        self._require_mount = require_mount
        self._file_perm = file_perm
        self._prefix = path if path.endswith("/") else f"{path}/"
        self._mount: MountGuard | None = None  # of a directory that has been there once
        # What is found out about the file system.
        self.unnamed_files = True
        self._told: set[str] = set()
        self.problem: str | None = None  # why it takes no images at present
        # In which process, and since when, an answer is due.
        self._owed: dict[object, tuple[int, float]] = {}

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return self._prefix + name

    def prepare(self) -> None:
        """Create the directory if need be.

        :raises StorageWriteDenied: its file system is gone
        :raises OSError: it cannot be created
        """
        mount = MountGuard(self.path, self._require_mount)
        # Before the directory is made: it might be made on the wrong file system.
        problem = mount.problem()
        if problem is not None:
            raise self._unusable(problem)
        prepare(self.path, self._file_perm)
        self._mount = mount

    def check_mount(self, descriptor: int | None = None) -> None:
        """Refuse to go on when the file system has gone away.

        :param descriptor: of the directory, where it is open
        :raises StorageWriteDenied: it has
        """
        problem = self.problem if self._mount is None else self._mount.problem(descriptor)
        if problem is not None:
            raise self._unusable(problem)

    def _unusable(self, problem: str) -> exceptions.StorageWriteDenied:
        return exceptions.StorageWriteDenied(
            _("Data directory %(path)s is not usable: %(problem)s"),
            path=self.path,
            problem=problem,
        )

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        # No lexists(): it raises and catches an error for each image that is new.
        return os.access(self._prefix + name, os.F_OK, follow_symlinks=False)

    def room(self) -> int | None:
        """Return the bytes that can be written, None when the file system does not say.

        :raises StorageWriteDenied: its file system is gone, or mounted read-only
        :raises OSError: the file system does not answer
        """
        if self._mount is None:
            self.prepare()
        self.check_mount()
        figures = syscalls.figures(self.path)
        if figures is not None and figures.f_flag & os.ST_RDONLY:
            raise self._unusable("its file system is mounted read-only")
        return syscalls.free(figures)

    # -- what file systems can and cannot do

    def warn(self, text: str, *values: object) -> None:
        """Tell the operator about a trait of the file system, once."""
        if text not in self._told:
            self._told.add(text)
            LOG.warning("Data directory %s: %s", self.path, text % values)

    def flush_file(self, file: int) -> None:
        """Bring a file to stable storage.

        :param file: descriptor
        :raises OSError: its data is lost
        """
        try:
            os.fsync(file)
        except OSError as exc:
            if exc.errno not in syscalls.UNSUPPORTED:
                raise
            self.warn("files cannot be flushed, which is left to the system: %s", exc.strerror)

    def flush_names(self, directory: int) -> None:
        """Bring the names in the directory to stable storage.

        :param directory: descriptor
        :raises OSError: names are lost
        """
        try:
            os.fsync(directory)
        except OSError as exc:
            if exc.errno not in _NO_DIRECTORY_FLUSH:
                raise
            self.warn("it cannot be flushed, which is left to the system: %s", exc.strerror)

    def lock(self, directory: int) -> bool:
        """Hold the other uploads of this host off, where the file system has such locks.

        :param directory: descriptor
        :returns: whether there is a lock to give back
        """
        locks = syscalls.lock(directory)
        if not locks:
            self.warn("it cannot be locked: uploads of one id should not run at the same time")
        return locks

    # -- one of several

    def take_out(self, reason: object) -> None:
        """Note that it takes no images at present."""
        if self.problem is None:
            LOG.warning(
                "Data directory %s takes no images until this has passed, the others go on: %s",
                self.path,
                reason,
            )
        self.problem = str(reason)

    def put_back(self) -> None:
        """Note that it takes images."""
        if self.problem is not None:
            self.problem = None
            LOG.warning("Data directory %s takes images again", self.path)

    def owing(self, function: Callable[..., _T], *args: object) -> _T:
        """Call a function that may hang, and note for how long."""
        token = object()
        self._owed[token] = os.getpid(), time.monotonic()
        try:
            return function(*args)
        finally:
            del self._owed[token]

    def is_overdue(self, timeout: float) -> bool:
        """Tell whether a call has hung for so many seconds, and does still."""
        if not self._owed:
            return False
        # What a parent waits for is no answer due to its child.
        limit, this = time.monotonic() - timeout, os.getpid()
        return any(pid == this and since <= limit for pid, since in list(self._owed.values()))


class DataDirs:
    """The data directories of one store, by priority.

    :param directories: at least one
    :param guard: bounds the time of calls
    """

    def __init__(self, directories: list[DataDir], guard: Calls) -> None:
        self.all = sorted(directories, key=lambda directory: -directory.priority)
        self._guard = guard

    def _ask(self, directory: DataDir, function: Callable[..., _T], *args: object) -> _T:
        """Call a function about a directory; one that hangs is left alone until it answers."""
        guard = self._guard
        if len(self.all) > 1 and guard.timeout:
            if directory.is_overdue(guard.timeout):
                raise exceptions.TimeoutError(timeout=guard.timeout)
            args = (function, *args)
            function = directory.owing
        return guard.call(function, *args)

    def candidates(self, size: int) -> list[DataDir]:
        """Return the directories for a new image, the best first.

        With several, these are the ones that have room for it: by priority, and among those of one
        priority by free space. One whose file system is gone, read-only or hangs is left out.

        :param size: bytes of the image, 0 when unknown
        :raises StorageFull: none has room
        :raises GlanceStoreException: none is usable
        :raises OSError: none is usable
        """
        if len(self.all) == 1:
            return self.all
        room: dict[DataDir, int | None] = {}
        problems: list[Exception] = []
        for directory in self.all:
            try:
                room[directory] = self._ask(directory, directory.room)
            except (OSError, exceptions.GlanceStoreException) as exc:
                directory.take_out(exc)
                problems.append(exc)
        # Not the figures say whether there is room where there are none: the write does.
        fitting = [
            directory for directory, free in room.items() if free is None or free >= max(size, 1)
        ]
        if fitting:
            return sorted(fitting, key=lambda each: (-each.priority, -(room[each] or 0)))
        if not room:
            raise problems[0]
        places = [f"{directory.path} has {free}" for directory, free in room.items()]
        raise exceptions.StorageFull(
            _("No data directory has room for %(size)d bytes: %(directories)s"),
            size=size,
            directories=", ".join([*places, *map(str, problems)]),
        )

    def find(self, name: str) -> str | None:
        """Return the path of a file that is in one of the directories, None if it is in none.

        :raises TimeoutError: the only directory hangs
        """
        for directory in self.all:
            try:
                if self._ask(directory, directory.holds, name):
                    return directory.file(name)
            except exceptions.TimeoutError as exc:
                if len(self.all) == 1:
                    raise
                directory.take_out(exc)
        return None

    @contextlib.contextmanager
    def publishing(self, name: str) -> Iterator[None]:
        """Hold other uploads off while a name is published that must be new to all directories.

        :raises Duplicate: the name is taken
        """
        timeout = self._guard.timeout
        usable = [directory for directory in self.all if not directory.is_overdue(timeout)]
        known = set()
        with contextlib.ExitStack() as locks:
            # All of them, in one order: two processes need not agree on which ones work.
            for directory in usable:
                try:
                    descriptor = syscalls.open_directory(directory.path)
                    locks.callback(os.close, descriptor)
                    status = os.fstat(descriptor)
                except OSError:
                    # It is out of use: nothing is stored there at present.
                    continue
                if (status.st_dev, status.st_ino) in known:
                    # One directory under two names: this upload would wait for its own lock.
                    continue
                known.add((status.st_dev, status.st_ino))
                if directory.lock(descriptor):
                    # Not by closing it alone: a forked process may have it open as well.
                    locks.callback(syscalls.unlock, descriptor)
            for directory in usable:
                if directory.holds(name):
                    raise exceptions.Duplicate(image=directory.file(name))
            yield
