# SPDX-License-Identifier: Apache-2.0
"""The VMware datastore store: options and locations; see `glance_store._drivers._pending`."""

from __future__ import annotations

from glance_store._drivers._pending import PendingStore
from glance_store._drivers.vmware_datastore.location import StoreLocation
from glance_store._drivers.vmware_datastore.options import OPTIONS

__all__ = ["Store", "StoreLocation"]


class Store(PendingStore):
    """Images as files of VMware datastores."""

    DRIVER = "vmware"
    SCHEMES = ("vsphere",)
    OPTIONS = OPTIONS
