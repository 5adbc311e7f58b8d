# SPDX-License-Identifier: Apache-2.0
"""The Cinder store."""

from typing import Any

from glance_store._drivers.cinder.location import StoreLocation
from glance_store._drivers.cinder.store import Store

__all__ = ["Store", "StoreLocation"]


def __getattr__(name: str) -> Any:
    """Import cinderclient on first use: most who load the drivers never need it."""
    if name != "cinderclient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from cinderclient.v3 import client as found
    except ImportError:
        found = None
    globals()[name] = found
    return found
