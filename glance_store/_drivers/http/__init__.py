# SPDX-License-Identifier: Apache-2.0
"""The store that reads images from web servers."""

from glance_store._drivers.http.location import StoreLocation
from glance_store._drivers.http.store import Store

__all__ = ["Store", "StoreLocation"]
