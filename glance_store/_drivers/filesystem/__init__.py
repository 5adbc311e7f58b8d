# SPDX-License-Identifier: Apache-2.0
"""The store that keeps images as files in a directory, local or on a network file system."""

from glance_store._drivers.filesystem.chunked import ChunkedFile
from glance_store._drivers.filesystem.location import StoreLocation
from glance_store._drivers.filesystem.store import Store

__all__ = ["ChunkedFile", "Store", "StoreLocation"]
