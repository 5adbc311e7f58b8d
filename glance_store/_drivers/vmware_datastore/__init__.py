# SPDX-License-Identifier: Apache-2.0
"""The VMware datastore store."""

from glance_store._drivers.vmware_datastore.location import StoreLocation
from glance_store._drivers.vmware_datastore.store import Store

__all__ = ["Store", "StoreLocation"]
