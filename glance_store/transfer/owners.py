# SPDX-License-Identifier: Apache-2.0
"""Creates files that several processes share, also if an operator's command runs as root.

The service could not use what belongs to root. So root gives what it creates to the owner of the
directory around it.
"""

from __future__ import annotations

import contextlib
import os


def open_shared(path: str, mode: int) -> int:
    """Open a file for reading and writing, and create it if it is missing. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileExistsError):
        file = os.open(path, flags | os.O_EXCL, mode)
        _give(file, path)
        return file
    return os.open(path, flags, mode)


def make_shared(path: str, mode: int) -> None:
    """Create a directory and those above it, unless they exist. Raises OSError."""
    parent = os.path.dirname(path)
    if parent and not os.path.exists(parent):
        make_shared(parent, 0o777)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _give(file, path)
    finally:
        os.close(file)


def _give(file: int, path: str) -> None:
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path) or ".")
        # By descriptor: the owner may have put something else in its place. Some file systems have
        # no owners.
        with contextlib.suppress(OSError):
            os.fchown(file, owner.st_uid, owner.st_gid)
