# SPDX-License-Identifier: Apache-2.0
"""The Swift store."""

from glance_store._drivers.swift.location import StoreLocation
from glance_store._drivers.swift.store import BaseStore, Store

__all__ = ["BaseStore", "Store", "StoreLocation"]
