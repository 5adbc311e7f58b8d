# SPDX-License-Identifier: Apache-2.0
"""The data directories of a store, and the choice of one for the next image."""

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
from glance_store.transfer.retry import looks
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")

# A list in one value, as other options take it: here it would name one directory with an odd path.
_SEVERAL = re.compile(r"[,;]\s*/|:\s*-?[0-9]+\s+/")
# Errors of file systems that cannot flush a directory. For a file, most of these are real failures.
_NO_DIRECTORY_FLUSH = syscalls.UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM}


def parse(values: list[str]) -> dict[str, int]:
    """Parse ``filesystem_store_datadirs`` into {path: priority}; ValueError says what is wrong."""
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
    """Refuse a path that is relative, a list or a URI; ValueError says what is wrong."""
    several = _SEVERAL.search(path)
    if path.startswith("/") and not several:
        return
    problem = "a relative path depends on the working directory of the process"
    if several:
        problem = "for several directories, set filesystem_store_datadirs once for each"
    elif "://" in path:
        problem = "this is a URI"
    elif path.startswith("~"):
        problem = "~ is not expanded"
    raise ValueError(f"{option} = {path}: {problem}; give the absolute path of a directory")


def prepare(path: str, file_perm: int) -> None:
    """Create a data directory if needed, and let those enter it who may read its files."""
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
        # A directory that belongs to somebody else may still be writable.
        LOG.warning(
            "Data directory %s keeps its permissions %o, so the users that "
            "filesystem_store_file_perm %o lets read images may not reach them: %s",
            path,
            mode,
            file_perm,
            exc.strerror,
        )


def _make(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError as exists:
        # Raised for a file, and for a dangling symbolic link.
        try:
            os.stat(path)
        except FileNotFoundError as exc:
            target = os.path.join(os.path.dirname(path), os.readlink(path))
            reason = f"it is a symbolic link to {target}: {exc.strerror}"
            raise FileNotFoundError(exc.errno, reason, path) from exc
        reason = f"{exists.strerror}, and it is not a directory"
        raise FileExistsError(exists.errno, reason, path) from exists


class NotMounted(exceptions.BackendUnavailable, exceptions.StorageWriteDenied):
    """The file system of a data directory is gone; it may come back."""


class DataDir:
    """A directory for images; the one with the highest priority is filled first."""

    def __init__(
        self, path: str, priority: int = 0, require_mount: bool = False, file_perm: int = 0
    ) -> None:
        self.path = path
        self.priority = priority
        self._require_mount = require_mount
        self._file_perm = file_perm
        self._prefix = path if path.endswith("/") else f"{path}/"
        self._mount: MountGuard | None = None  # set once the directory has been there
        # What is learned about the file system.
        self.unnamed_files = True
        self._warned: set[str] = set()
        self.problem: str | None = None  # why it takes no images for now
        # The calls that have not returned: process and start of each.
        self._pending: dict[object, tuple[int, float]] = {}

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return self._prefix + name

    def prepare(self) -> None:
        """Create the directory if needed; NotMounted if its file system is gone."""
        mount = MountGuard(self.path, self._require_mount)
        # Checked first: the directory might be created on the wrong file system.
        problem = mount.problem()
        if problem is not None:
            raise self._unusable(problem, NotMounted)
        prepare(self.path, self._file_perm)
        self._mount = mount

    def check_mount(self, descriptor: int | None = None) -> None:
        """Raise NotMounted if the file system is gone; a descriptor makes this cheap."""
        problem = self.problem if self._mount is None else self._mount.problem(descriptor)
        if problem is not None:
            raise self._unusable(problem, NotMounted)

    def _unusable(
        self,
        problem: str,
        kind: type[exceptions.StorageWriteDenied] = exceptions.StorageWriteDenied,
    ) -> exceptions.StorageWriteDenied:
        return kind(
            _("Data directory %(path)s is not usable: %(problem)s"),
            path=self.path,
            problem=problem,
        )

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        # Not lexists(): it raises and catches an exception for every new image.
        return os.access(self._prefix + name, os.F_OK, follow_symlinks=False)

    def room(self) -> int | None:
        """Return the bytes that can be written, None if the file system does not say."""
        if self._mount is None:
            self.prepare()
        self.check_mount()
        figures = syscalls.figures(self.path)
        if figures is not None and figures.f_flag & os.ST_RDONLY:
            raise self._unusable("its file system is mounted read-only")
        return syscalls.free(figures)

    # -- what file systems can and cannot do

    def warn(self, text: str, *values: object) -> None:
        """Warn about a trait of the file system, once."""
        if text not in self._warned:
            self._warned.add(text)
            LOG.warning("Data directory %s: %s", self.path, text % values)

    def flush_file(self, file: int) -> None:
        """Flush a file to stable storage, if the file system can."""
        try:
            os.fsync(file)
        except OSError as exc:
            if exc.errno not in syscalls.UNSUPPORTED:
                raise
            self.warn(
                "files cannot be flushed; the system writes them to disk later: %s", exc.strerror
            )

    def flush_names(self, directory: int) -> None:
        """Flush the names in the directory to stable storage, if the file system can."""
        try:
            os.fsync(directory)
        except OSError as exc:
            if exc.errno not in _NO_DIRECTORY_FLUSH:
                raise
            self.warn("it cannot be flushed; the system writes it to disk later: %s", exc.strerror)

    def lock(self, directory: int) -> bool:
        """Keep this host's other uploads out; False if the file system has no such locks."""
        locks = syscalls.lock(directory)
        if not locks:
            self.warn("it cannot be locked: do not run two uploads of one id at the same time")
        return locks

    # -- one of several

    def take_out(self, reason: object) -> None:
        """Note that the directory takes no images for now."""
        if self.problem is None:
            LOG.warning(
                "Data directory %s takes no images for now, the others still do: %s",
                self.path,
                reason,
            )
        self.problem = str(reason)

    def put_back(self) -> None:
        """Note that the directory takes images again."""
        if self.problem is not None:
            self.problem = None
            LOG.warning("Data directory %s takes images again", self.path)

    def tracked(self, function: Callable[..., _T], *args: object) -> _T:
        """Call a function that may hang, and keep track of how long it takes."""
        token = object()
        self._pending[token] = os.getpid(), time.monotonic()
        try:
            return function(*args)
        finally:
            del self._pending[token]

    def is_overdue(self, timeout: float) -> bool:
        """Tell whether a call has been hanging for so many seconds."""
        if not self._pending:
            return False
        # A forked child does not wait for its parent's calls.
        limit, this = time.monotonic() - timeout, os.getpid()
        return any(pid == this and since <= limit for pid, since in list(self._pending.values()))


class DataDirs:
    """The data directories of one store, by priority."""

    def __init__(self, directories: list[DataDir], guard: Calls) -> None:
        self.all = sorted(directories, key=lambda directory: -directory.priority)
        self._guard = guard

    def _ask(self, directory: DataDir, function: Callable[..., _T], *args: object) -> _T:
        """Call a function about a directory, unless another call to it is hanging."""
        guard = self._guard
        if len(self.all) > 1 and guard.timeout:
            if directory.is_overdue(guard.timeout):
                raise exceptions.TimeoutError(timeout=guard.timeout)
            args = (function, *args)
            function = directory.tracked
        return guard.call(function, *args)

    def candidates(self, size: int) -> list[DataDir]:
        """Return the directories for a new image, best first.

        Of several, those with room for it: by priority, then by free space. One that is gone,
        read-only or hanging is left out.
        """
        if len(self.all) == 1:
            return self.all
        for _look in looks(syscalls.ROOM_LAGS):
            room, problems = self._rooms()
            # Without a figure, the write itself shows whether there is room.
            fitting = [each for each, free in room.items() if free is None or free >= max(size, 1)]
            if fitting:
                return sorted(fitting, key=lambda each: (-each.priority, -(room[each] or 0)))
            if not room:
                raise problems[0]
        shortages = [f"{directory.path} has {free} free" for directory, free in room.items()]
        raise exceptions.StorageFull(
            _("No data directory has room for %(size)d bytes: %(directories)s"),
            size=size,
            directories=", ".join([*shortages, *map(str, problems)]),
        )

    def _rooms(self) -> tuple[dict[DataDir, int | None], list[Exception]]:
        """Return the room in each directory that can be used, and the problems of the others."""
        room: dict[DataDir, int | None] = {}
        problems: list[Exception] = []
        for directory in self.all:
            try:
                room[directory] = self._ask(directory, directory.room)
            except (OSError, exceptions.GlanceStoreException) as exc:
                directory.take_out(exc)
                problems.append(exc)
        return room, problems

    def find(self, name: str) -> str | None:
        """Return the path of a file in one of the directories, None if it is in none."""
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
        """Keep other uploads out while a name is published that must be new to all directories."""
        timeout = self._guard.timeout
        usable = [directory for directory in self.all if not directory.is_overdue(timeout)]
        known = set()
        with contextlib.ExitStack() as locks:
            # Lock all of them, in one order: processes may disagree on which ones work.
            for directory in usable:
                try:
                    descriptor = syscalls.open_directory(directory.path)
                    locks.callback(os.close, descriptor)
                    status = os.fstat(descriptor)
                except OSError:
                    # Out of use: nothing is stored there for now.
                    continue
                if (status.st_dev, status.st_ino) in known:
                    # One directory under two names: this upload would wait for its own lock.
                    continue
                known.add((status.st_dev, status.st_ino))
                if directory.lock(descriptor):
                    # Closing it is not enough: a forked process may have it open too.
                    locks.callback(syscalls.unlock, descriptor)
            for directory in usable:
                if directory.holds(name):
                    raise exceptions.Duplicate(image=directory.file(name))
            yield
