# SPDX-License-Identifier: Apache-2.0
"""Ceph's Python bindings, and a register of their open objects that makes forking safe."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, TypeVar

_T = TypeVar("_T")

_PACKAGE = __name__.rpartition(".")[0]


def rados() -> Any:
    """Return the module `rados`, or None where it is not installed."""
    # Looked up on the package, where tests replace it.
    return sys.modules[_PACKAGE].rados


def rbd() -> Any:
    """Return the module `rbd`, or None where it is not installed."""
    return sys.modules[_PACKAGE].rbd


# Constants of librbd that older bindings do not export.
FEATURE_STRIPING = 1 << 1
FEATURE_MIGRATING = 1 << 9
MIRROR_SNAPSHOT = 3


def try_when_full(access: Any) -> None:
    """Make requests through a pool's ioctx fail when the pool is full, instead of waiting.

    Requests that free space still succeed.
    """
    # The newer name comes first. Bindings with neither wait, as they always have.
    for name in ("set_pool_full_try", "set_osdmap_full_try"):
        if hasattr(access, name):
            getattr(access, name)()
            return


class _Objects:
    """The bindings' objects that are open in this process."""

    def __init__(self) -> None:
        self._open: dict[int, Any] = {}

    def opened(self, native: _T) -> _T:
        """Register an open object and return it."""
        self._open[id(native)] = native
        return native

    def closed(self, native: Any) -> None:
        """Forget an object that was closed."""
        self._open.pop(id(native), None)

    def forget(self) -> None:
        """Keep the open objects from ever being closed: after a fork, and when the process ends.

        The bindings close an object when it is collected. In a forked child, closing it would wait
        forever for Ceph's threads, which the child does not have; at the end of a process, calls
        may still use it. So each object gets a reference that is never given back.
        """
        for native in list(self._open.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
        self._open = {}


OBJECTS = _Objects()

os.register_at_fork(after_in_child=OBJECTS.forget)
