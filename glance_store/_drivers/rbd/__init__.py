# SPDX-License-Identifier: Apache-2.0
"""The Ceph RBD store.

`rados` and `rbd` are Ceph's Python bindings, or None where they are not installed. They are
imported on first use, not with this package.
"""

from __future__ import annotations

import importlib
from typing import Any

from glance_store._drivers.rbd.location import StoreLocation
from glance_store._drivers.rbd.store import Store

__all__ = ["Store", "StoreLocation"]

rados: Any
rbd: Any


def __getattr__(name: str) -> Any:
    if name not in ("rados", "rbd"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module: Any = importlib.import_module(name)
    except ImportError:
        # Not installed, or built for another Python version: the store cannot work either way.
        module = None
    globals()[name] = module
    return module
