# SPDX-License-Identifier: Apache-2.0
"""The Swift store."""

from __future__ import annotations

from typing import Any

from glance_store._drivers.swift.location import StoreLocation
from glance_store._drivers.swift.store import (
    BaseStore,
    MultiTenantStore,
    SingleTenantStore,
    Store,
)

swiftclient: Any
try:
    import swiftclient  # type: ignore[no-redef]
except ImportError:
    # When configured, the store says what to install.
    swiftclient = None

__all__ = [
    "BaseStore",
    "MultiTenantStore",
    "SingleTenantStore",
    "Store",
    "StoreLocation",
    "swiftclient",
]
