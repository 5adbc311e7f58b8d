# SPDX-License-Identifier: Apache-2.0
"""The read-only store for images on web servers."""

from glance_store._drivers.http.location import StoreLocation
from glance_store._drivers.http.store import Store

__all__ = ["Store", "StoreLocation"]
