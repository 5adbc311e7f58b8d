# SPDX-License-Identifier: Apache-2.0
"""Drivers that go wrong, each at another moment."""

from typing import ClassVar

import glance_store.driver
import glance_store.location
from glance_store import capabilities, exceptions


class StoreLocation(glance_store.location.StoreLocation):
    """faulty:<anything>"""

    def get_uri(self):
        return self.uri

    def parse_uri(self, uri):
        self.uri = uri


class FaultyStore(glance_store.driver.Store):
    """What the drivers below have in common."""

    _CAPABILITIES = capabilities.BitMasks.RW_ACCESS | capabilities.BitMasks.DRIVER_REUSABLE

    def get_schemes(self):
        return ("faulty",)


class RaisesInConstructor(FaultyStore):
    """Refuses its configuration as soon as it is built."""

    def __init__(self, conf, backend=None):
        super().__init__(conf, backend)
        raise exceptions.BadStoreConfiguration(store_name="faulty", reason="not today")


class CrashesInConstructor(FaultyStore):
    """Fails in a way that has nothing to do with this library."""

    def __init__(self, conf, backend=None):
        super().__init__(conf, backend)
        raise RuntimeError("the native library is of another version")


class RaisesInConfigure(FaultyStore):
    """Overrides configure and raises before the base is called."""

    def configure(self, re_raise_bsc=False):
        raise exceptions.BadStoreConfiguration(store_name="faulty", reason="no host is set")


class HasNoGetSchemes(glance_store.driver.Store):
    """Leaves get_schemes to the base."""


class NamesNoScheme(FaultyStore):
    """Serves nothing."""

    def get_schemes(self):
        return ()


class CannotWrite(FaultyStore):
    """Finds no place to write to."""

    def configure_add(self):
        raise exceptions.BadStoreConfiguration(store_name="faulty", reason="the disk is gone")


class OutOfReach(FaultyStore):
    """Connects when it is configured, which fails with `FAILURE` as long as that is set."""

    FAILURE = None
    ATTEMPTS: ClassVar[list] = []

    def configure_add(self):
        self.ATTEMPTS.append(self.backend_group)
        if self.FAILURE is not None:
            raise self.FAILURE
        self.connected = True

    @glance_store.driver.back_compat_add
    @capabilities.check
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        assert self.connected
        return "faulty:x", 0, "checksum", "multihash", {}

    def get_size(self, location, context=None):
        assert self.connected
        return 7

    def storage_ids(self):
        return {"the only place"}


class OutOfReachEachTime(OutOfReach):
    """The same, made anew for each operation."""

    _CAPABILITIES = capabilities.BitMasks.RW_ACCESS


class ReturnsBadMetadata(FaultyStore):
    """Returns as metadata what the caller sent as data."""

    @glance_store.driver.back_compat_add
    @capabilities.check
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        return "faulty:x", 0, "checksum", "multihash", image_file
