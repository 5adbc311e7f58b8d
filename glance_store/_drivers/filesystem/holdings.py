# SPDX-License-Identifier: Apache-2.0
"""Lists what data directories hold: images, leftovers of uploads, and free space."""

from __future__ import annotations

import itertools
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator

from glance_store import exceptions
from glance_store._drivers.filesystem import syscalls
from glance_store._drivers.filesystem.claim import PARTIAL_SUFFIX
from glance_store._drivers.filesystem.datadirs import DataDir
from glance_store.i18n import _
from glance_store.inventory import (
    COMPLETE,
    FOREIGN,
    INCOMPLETE,
    Capacity,
    Leftover,
    StoredImage,
)
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

# Files to look at per call, which has a time limit.
_PAGE = 500
# The temporary names that `claim` gives; no image has one.
_PARTIAL = re.compile(rf"\.glance_store-[0-9a-f]{{16}}{re.escape(PARTIAL_SUFFIX)}")
# Bytes of a block as st_blocks counts them.
_BLOCK = 512


def images(directory: DataDir, calls: Calls) -> Iterator[StoredImage]:
    """Yield everything in a data directory."""
    calls.call(directory.check_mount)
    entries = calls.call(os.scandir, directory.path)
    try:
        while page := calls.call(_page, entries, directory):
            yield from page
    finally:
        entries.close()


def _page(entries: Iterator[os.DirEntry[str]], directory: DataDir) -> list[StoredImage]:
    found = [_entry(entry, directory) for entry in itertools.islice(entries, _PAGE)]
    # A page whose files have all vanished is not the last one.
    return [image for image in found if image is not None] or (
        _page(entries, directory) if found else []
    )


def _entry(entry: os.DirEntry[str], directory: DataDir) -> StoredImage | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno in syscalls.LOST:
            raise
        # A broken file does not hide the others.
        LOG.warning("%s cannot be examined: %s", directory.file(entry.name), exc.strerror)
        return StoredImage(entry.name, None, None, FOREIGN)
    regular = stat.S_ISREG(status.st_mode)
    state = COMPLETE if regular and not entry.name.startswith(".") else FOREIGN
    if regular and _PARTIAL.fullmatch(entry.name):
        state = INCOMPLETE
    return StoredImage(
        image_id=entry.name,
        uri=f"file://{directory.file(entry.name)}" if state == COMPLETE else None,
        size=status.st_size if regular else None,
        state=state,
        modified=status.st_mtime,
        used=status.st_blocks * _BLOCK,
    )


def leftovers(directory: DataDir, calls: Calls, older_than: float) -> Iterator[Leftover]:
    """Yield files of unfinished uploads that nobody has written to for so many seconds."""
    for image in images(directory, calls):
        if image.state != INCOMPLETE:
            continue
        path = directory.file(image.image_id)

        def remove(path: str = path) -> None:
            calls.call(_remove, path, older_than)

        if calls.call(_is_left, path, older_than):
            yield Leftover(
                name=path,
                size=image.size,
                modified=image.modified,
                proof=_("it has the name of an upload, and no process holds it locked"),
                remove=remove,
            )


def _is_left(path: str, older_than: float) -> bool:
    try:
        file = _opened(path)
    except FileNotFoundError:
        return False
    except OSError as exc:
        if exc.errno in syscalls.LOST:
            raise
        LOG.warning("Cannot tell whether %s is being written: %s", path, exc.strerror)
        return False
    try:
        return _is_old(file, older_than) and not syscalls.is_held(file)
    finally:
        os.close(file)


def _opened(path: str) -> int:
    # Opened for writing: NFS locks nothing else.
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _is_old(file: int, older_than: float) -> bool:
    return os.fstat(file).st_mtime <= time.time() - older_than


def _remove(path: str, older_than: float) -> None:
    try:
        file = _opened(path)
    except FileNotFoundError:
        return
    try:
        if syscalls.is_held(file) or not _is_old(file, older_than):
            raise exceptions.InUseByStore(_("%(path)s is being written"), path=path)
        os.unlink(path)
    finally:
        os.close(file)


def capacity(directories: Iterable[DataDir], calls: Calls) -> Capacity | None:
    """Return the space of the directories' file systems, each counted once."""
    found: dict[int, Capacity] = {}
    for directory in directories:
        try:
            device, room = calls.call(_room, directory.path)
        except (OSError, exceptions.TimeoutError):
            # A directory that is out of use does not count.
            continue
        if room is not None:
            found[device] = room
    if not found:
        return None
    total, free, used = (sum(figures) for figures in zip(*found.values(), strict=True))
    return Capacity(total, free, used)


def _room(path: str) -> tuple[int, Capacity | None]:
    figures = syscalls.figures(path)
    free = syscalls.free(figures)
    device = os.stat(path).st_dev
    if figures is None or free is None:
        return device, None
    unit = figures.f_frsize or figures.f_bsize
    used = figures.f_blocks - figures.f_bfree
    return device, Capacity(figures.f_blocks * unit, free, used * unit)
