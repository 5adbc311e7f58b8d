# SPDX-License-Identifier: Apache-2.0
"""The entry point of the driver: one class for one account, one for the accounts of users."""

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
    """Make a Swift store; the entry point of the driver, which is a function by contract.

    :param conf: the configuration, where swift_store_multi_tenant decides about the class
    :param backend: identifier of the store in multi-store mode
    :raises BadStoreConfiguration: the options contradict each other
    """
    store = SingleTenantStore(conf, backend)
    if store.store_conf.swift_store_multi_tenant:
        return MultiTenantStore(conf, backend)
    return store


# The lists of options are read from what the entry point yields.
Store.OPTIONS = OPTIONS  # type: ignore[attr-defined]
