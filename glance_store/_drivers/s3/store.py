# SPDX-License-Identifier: Apache-2.0
"""The S3 store: options and locations; see `glance_store._drivers._pending`."""

from __future__ import annotations

from glance_store._drivers._pending import PendingStore
from glance_store._drivers.s3.location import SCHEMES, StoreLocation
from glance_store._drivers.s3.options import OPTIONS

__all__ = ["Store", "StoreLocation"]


class Store(PendingStore):
    """Images as objects of an S3 bucket."""

    DRIVER = "s3"
    SCHEMES = SCHEMES
    OPTIONS = OPTIONS
    EXAMPLE_URL = "s3+https://<HOST>/<BUCKET>/<OBJECT>"
