# SPDX-License-Identifier: Apache-2.0
"""Detects that the file system under a data directory is not mounted.

An empty mount point is an ordinary directory of the file system above it, usually the root: images
written there fill the system disk, and vanish at the next mount.
"""

from __future__ import annotations

import os

FSTAB = "/etc/fstab"
MOUNTINFO = "/proc/self/mountinfo"


def _unescape(name: str) -> str:
    # Both tables write white space in names as octal escapes.
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        name = name.replace(code, char)
    return name


def _mounted() -> set[str]:
    """Return all mount points of this process, including bind mounts."""
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as table:
            return {_unescape(line.split()[4]) for line in table}
    except OSError:
        return set()


def is_mount_point(path: str) -> bool:
    """Tell whether something is mounted at an absolute path without symbolic links."""
    # Only the table shows a bind mount within one file system.
    return path == "/" or os.path.ismount(path) or path in _mounted()


def mount_point(path: str) -> str:
    """Return the mount point of a path, which need not exist yet."""
    current = os.path.realpath(path)
    mounted = _mounted()
    while current not in mounted and not os.path.ismount(current):
        above = os.path.dirname(current)
        if above == current:
            # The root, whatever the system reports; or not a path at all, where a program has
            # replaced os.path.
            break
        current = above
    return current


def declared_mount_points(fstab: str = FSTAB) -> list[str]:
    """Return the directories that the host mounts at start-up."""
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
    """Watches the file system under one directory, which need not exist yet."""

    def __init__(self, path: str, require_mount: bool, fstab: str = FSTAB) -> None:
        self._path = path
        self._require_mount = require_mount
        self._fstab = fstab
        # What is mounted there now must stay mounted.
        self._point = mount_point(path)
        declared = [point for point in declared_mount_points(fstab) if self._lies_on(point)]
        self._declared = os.path.realpath(max(declared, key=len, default="/"))
        self._device: int | None = None  # the device, where it identifies the file system

    def _lies_on(self, point: str) -> bool:
        """Tell whether the path now leads below a mount point; a link in it may have changed."""
        names = {os.path.abspath(self._path), os.path.realpath(self._path)}
        return any(is_within(name, point) for name in names)

    def problem(self, directory: int | None = None) -> str | None:
        """Say what is wrong with the file system, else None; a descriptor makes this cheap."""
        if directory is not None and os.fstat(directory).st_dev == self._device:
            return None
        # Entering the directory makes an automounter mount it.
        os.path.exists(os.path.join(self._path, "."))
        if not is_mount_point(self._point) and self._lies_on(self._point):
            return f"the file system that was mounted at {self._point} is gone; mount it again"
        if not is_mount_point(self._declared) and self._lies_on(self._declared):
            return (
                f"{self._declared} is a mount point in {self._fstab}, but nothing is mounted "
                "there; mount it"
            )
        if self._require_mount and mount_point(self._path) == "/":
            return (
                f"{self._path} is on the root file system, which filesystem_store_require_mount "
                "forbids; mount the file system for images"
            )
        if directory is not None and os.path.ismount(self._point):
            # Not for a bind mount: the directory below it may be on the same device.
            self._device = os.fstat(directory).st_dev
        return None


def is_within(path: str, directory: str) -> bool:
    """Tell whether a normalized absolute path is a directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
