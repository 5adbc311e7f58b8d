# SPDX-License-Identifier: Apache-2.0
"""The Cinder store."""

from glance_store._drivers.cinder.location import StoreLocation
from glance_store._drivers.cinder.store import Store

__all__ = ["Store", "StoreLocation"]
