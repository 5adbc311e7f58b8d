# SPDX-License-Identifier: Apache-2.0
"""The Ceph RBD store: options and locations; see `glance_store._drivers._pending`."""

from __future__ import annotations

from glance_store._drivers._pending import PendingStore
from glance_store._drivers.rbd.location import StoreLocation
from glance_store._drivers.rbd.options import OPTIONS

__all__ = ["Store", "StoreLocation"]


class Store(PendingStore):
    """Images as RBD images of a Ceph pool."""

    DRIVER = "rbd"
    SCHEMES = ("rbd",)
    OPTIONS = OPTIONS
    EXAMPLE_URL = "rbd://<FSID>/<POOL>/<IMAGE>/<SNAPSHOT>"
