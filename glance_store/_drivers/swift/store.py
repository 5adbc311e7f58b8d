# SPDX-License-Identifier: Apache-2.0
"""The entry point of the driver, which chooses the single-tenant or the multi-tenant store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glance_store._drivers.swift.base import BaseStore
from glance_store._drivers.swift.location import StoreLocation
from glance_store._drivers.swift.multi_tenant import MultiTenantStore
from glance_store._drivers.swift.options import OPTIONS
from glance_store._drivers.swift.single_tenant import SingleTenantStore

if TYPE_CHECKING:
    from oslo_config import cfg

__all__ = ["BaseStore", "MultiTenantStore", "SingleTenantStore", "Store", "StoreLocation"]


def Store(conf: cfg.ConfigOpts, backend: str | None = None) -> BaseStore:  # noqa: N802
    """Return a Swift store; by contract, the entry point of the driver is a function.

    :param conf: the configuration; swift_store_multi_tenant decides on the class
    :param backend: identifier of the store in multi-store mode
    :raises BadStoreConfiguration: the options contradict each other
    """
    store = SingleTenantStore(conf, backend)
    if store.store_conf.swift_store_multi_tenant:
        return MultiTenantStore(conf, backend)
    return store


# The option lists are read from the object that the entry point names.
Store.OPTIONS = OPTIONS  # type: ignore[attr-defined]
