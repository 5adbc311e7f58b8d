# SPDX-License-Identifier: Apache-2.0
"""The Ceph RBD store."""

from glance_store._drivers.rbd.location import StoreLocation
from glance_store._drivers.rbd.store import Store

__all__ = ["Store", "StoreLocation"]
