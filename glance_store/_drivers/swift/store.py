# SPDX-License-Identifier: Apache-2.0
"""The Swift store: options and locations; see `glance_store._drivers._pending`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glance_store._drivers._pending import PendingStore
from glance_store._drivers.swift.location import SCHEMES, StoreLocation
from glance_store._drivers.swift.options import OPTIONS

if TYPE_CHECKING:
    from oslo_config import cfg

__all__ = ["BaseStore", "Store", "StoreLocation"]


class BaseStore(PendingStore):
    """Images as objects of Swift containers."""

    DRIVER = "swift"
    SCHEMES = SCHEMES
    OPTIONS = OPTIONS
    EXAMPLE_URL = "swift+https://<USER>:<KEY>@<AUTH_ADDRESS>/<CONTAINER>/<OBJECT>"


def Store(conf: cfg.ConfigOpts, backend: str | None = None) -> BaseStore:  # noqa: N802
    """Make a Swift store; the entry point of the driver, which is a function by contract.

    :param conf: the configuration
    :param backend: identifier of the store in multi-store mode
    """
    return BaseStore(conf, backend)


# The lists of options are read from what the entry point yields.
Store.OPTIONS = OPTIONS  # type: ignore[attr-defined]
