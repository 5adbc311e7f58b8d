# SPDX-License-Identifier: Apache-2.0
"""The S3 store."""

from glance_store._drivers.s3.location import StoreLocation
from glance_store._drivers.s3.store import Store

__all__ = ["Store", "StoreLocation"]
