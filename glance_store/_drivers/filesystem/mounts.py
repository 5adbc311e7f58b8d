# SPDX-License-Identifier: Apache-2.0
"""Notices that the file system under a data directory has gone away.

An empty mount point is an ordinary directory of the file system above it, most often the root one:
images written there fill the disk of the operating system, and vanish at the next mount.
"""

from __future__ import annotations

import os

FSTAB = "/etc/fstab"
MOUNTINFO = "/proc/self/mountinfo"


def _unescape(name: str) -> str:
    # White space in a name is written as an octal escape, in both tables.
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        name = name.replace(code, char)
    return name


def _mounted() -> set[str]:
    """Return all mount points of this process, bind mounts among them."""
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as table:
            return {_unescape(line.split()[4]) for line in table}
    except OSError:
        return set()


def is_mount_point(path: str) -> bool:
    """Tell whether something is mounted at a real path.

    :param path: absolute, without links
    """
    # A bind mount of the same file system shows in the table alone.
    return path == "/" or os.path.ismount(path) or path in _mounted()


def mount_point(path: str) -> str:
    """Return the mount point that a path, which need not exist yet, lies on.

    :param path: the path
    """
    current = os.path.realpath(path)
    mounted = _mounted()
    while current not in mounted and not os.path.ismount(current):
        above = os.path.dirname(current)
        if above == current:
            # The root, whatever the system says of it; or no path at all, as where a program has
            # put something else in the place of os.path.
            break
        current = above
    return current


def declared_mount_points(fstab: str = FSTAB) -> list[str]:
    """Return the directories that the host mounts at start-up.

    :param fstab: path of the table
    """
    try:
        with open(fstab, encoding="utf-8", errors="surrogateescape") as table:
            lines = [line.split() for line in table]
    except OSError:
        return []
    points = []
    for fields in lines:
        if len(fields) < 4 or fields[0].startswith("#") or "noauto" in fields[3].split(","):
            continue
        point = _unescape(fields[1])
        if point.startswith("/"):
            points.append(os.path.normpath(point))
    return points


class MountGuard:
    """Watches the file system of one directory.

    :param path: the directory, which need not exist yet
    :param require_mount: it must not lie on the root file system
    :param fstab: table of the mounts of the host
    """

    def __init__(self, path: str, require_mount: bool, fstab: str = FSTAB) -> None:
        self._path = path
        self._require_mount = require_mount
        self._fstab = fstab
        # What is mounted there now has to be there later.
        self._point = mount_point(path)
        declared = [point for point in declared_mount_points(fstab) if self._lies_on(point)]
        self._declared = os.path.realpath(max(declared, key=len, default="/"))
        self._device: int | None = None  # of the file system, where a device tells it for sure

    def _lies_on(self, point: str) -> bool:
        """Tell whether the path leads to a directory now; a link in it may have been changed."""
        names = {os.path.abspath(self._path), os.path.realpath(self._path)}
        return any(is_within(name, point) for name in names)

    def problem(self, directory: int | None = None) -> str | None:
        """Say what is wrong with the file system of the directory; None when all is well.

        :param directory: descriptor of the directory, which makes the common case cheap: it is
            asked for each upload
        """
        if directory is not None and os.fstat(directory).st_dev == self._device:
            return None
        # Walking into the directory is what makes an automounter mount it.
        os.path.exists(os.path.join(self._path, "."))
        if not is_mount_point(self._point) and self._lies_on(self._point):
            return f"the file system that was mounted at {self._point} is gone; mount it again"
        if not is_mount_point(self._declared) and self._lies_on(self._declared):
            return (
                f"{self._declared} is a mount point by {self._fstab}, but nothing is mounted; "
                "mount it"
            )
        if self._require_mount and mount_point(self._path) == "/":
            return (
                f"{self._path} lies on the root file system, which "
                "filesystem_store_require_mount forbids; mount the file system for images"
            )
        if directory is not None and os.path.ismount(self._point):
            # Not for a bind mount: what is below it may be on the same device.
            self._device = os.fstat(directory).st_dev
        return None


def is_within(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies in it, by whole components.

    :param path: absolute, normalized
    :param directory: absolute, normalized
    """
    return path == directory or path.startswith(directory.rstrip("/") + "/")
