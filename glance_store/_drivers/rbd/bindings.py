# SPDX-License-Identifier: Apache-2.0
"""Ceph's Python bindings, and what becomes of their objects in a forked process."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, TypeVar

_T = TypeVar("_T")

_PACKAGE = __name__.rpartition(".")[0]


def rados() -> Any:
    """Return the module `rados`, None where it is not installed."""
    # By way of the package: its attribute may be replaced.
    return sys.modules[_PACKAGE].rados


def rbd() -> Any:
    """Return the module `rbd`, None where it is not installed."""
    return sys.modules[_PACKAGE].rbd


# Of librbd; older bindings lack the names.
FEATURE_STRIPING = 1 << 1
FEATURE_MIGRATING = 1 << 9
MIRROR_SNAPSHOT = 3


def try_when_full(access: Any) -> None:
    """Have requests to a pool not wait for space.

    In a full cluster or pool one that frees space is carried out then, and any other one fails at
    once.

    :param access: to the pool
    """
    # The newer name first; what has neither waits, as ever.
    for name in ("set_pool_full_try", "set_osdmap_full_try"):
        if hasattr(access, name):
            getattr(access, name)()
            return


class _Objects:
    """The objects of the bindings that are open in this process."""

    def __init__(self) -> None:
        self._open: dict[int, Any] = {}

    def opened(self, native: _T) -> _T:
        """Take note of an object that has been opened.

        :param native: the object
        :returns: the same
        """
        self._open[id(native)] = native
        return native

    def closed(self, native: Any) -> None:
        """Forget an object that has been closed.

        :param native: the object
        """
        self._open.pop(id(native), None)

    def forget(self) -> None:
        """Never touch again what is open: in a forked process, and when the process ends.

        In a child the threads of Ceph's libraries are not there, and to close an object would wait
        for them for ever; at the end calls may be using it. But to close it is what the bindings do
        when an object is collected. So it never is.
        """
        for native in list(self._open.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
        self._open = {}


OBJECTS = _Objects()

os.register_at_fork(after_in_child=OBJECTS.forget)
