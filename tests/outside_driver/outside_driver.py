# SPDX-License-Identifier: Apache-2.0
"""A store in memory that does everything itself, as drivers did before there was an engine.

Its images are kept by the module, because a store that is not reusable is built anew at each call.
"""

import hashlib

from oslo_config import cfg

import glance_store
import glance_store.common.utils
import glance_store.driver
import glance_store.location
from glance_store import capabilities, exceptions

OPTS = [
    cfg.StrOpt("memory_shelf", default="shelf", help="Where images are put."),
    cfg.IntOpt("memory_chunk", default=4, help="Bytes in a chunk."),
]
IMAGES = {}
ACLS = []
# One entry for each constructor call: the identifier of the store.
BUILT = []
CONFIGURED = []
# The configuration of each location that was parsed.
PARSED = []


class StoreLocation(glance_store.location.StoreLocation):
    """memory://<shelf>/<image id>"""

    def process_specs(self):
        self.shelf = self.specs.get("shelf")
        self.image_id = self.specs.get("image_id")

    def get_uri(self):
        return f"memory://{self.shelf}/{self.image_id}"

    def parse_uri(self, uri):
        PARSED.append((self.conf, self.backend_group))
        self.validate_schemas(uri, valid_schemas=("memory://",))
        self.shelf, _separator, self.image_id = uri[len("memory://") :].partition("/")
        if not self.image_id:
            raise exceptions.BadStoreUri(uri=uri)


class Chunks(glance_store.Indexable):
    """The sequence of chunks that old drivers return."""

    def another(self):
        return next(self.wrapped, b"")


class Store(glance_store.driver.Store):
    """Images as byte strings."""

    _CAPABILITIES = capabilities.BitMasks.RW_ACCESS
    OPTIONS = OPTS

    def __init__(self, conf, backend=None):
        super().__init__(conf, backend)
        BUILT.append(backend)

    def get_schemes(self):
        return ("memory",)

    def configure_add(self):
        CONFIGURED.append(self.backend_group)
        if self.backend_group:
            options = glance_store.driver.BackendGroupConfiguration(
                self.OPTIONS, config_group=self.backend_group, conf=self.conf
            )
        else:
            options = self.conf.glance_store
        self.shelf = options.memory_shelf
        self.chunk = options.memory_chunk
        self._url_prefix = f"memory://{self.shelf}/"

    def _stored(self, location):
        where = location.store_location
        try:
            return IMAGES[where.shelf, where.image_id]
        except KeyError:
            raise exceptions.NotFound(image=where.image_id) from None

    @capabilities.check
    def get(self, location, offset=0, chunk_size=None, context=None):
        data = self._stored(location)
        chunks = iter([data[at : at + self.chunk] for at in range(0, len(data), self.chunk)])
        return Chunks(chunks, len(data)), len(data)

    def get_size(self, location, context=None):
        return len(self._stored(location))

    @glance_store.driver.back_compat_add
    @capabilities.check
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        if (self.shelf, image_id) in IMAGES:
            raise exceptions.Duplicate(image=image_id)
        checksum = hashlib.new("md5", usedforsecurity=False)
        multihash = hashlib.new(hashing_algo, usedforsecurity=False)
        data = b""
        for chunk in glance_store.common.utils.chunkreadable(image_file, self.WRITE_CHUNKSIZE):
            data += chunk
            checksum.update(chunk)
            multihash.update(chunk)
            if verifier:
                verifier.update(chunk)
        IMAGES[self.shelf, image_id] = data
        place = StoreLocation({"shelf": self.shelf, "image_id": image_id}, self.conf)
        metadata = {"shelf": self.shelf}
        if self.backend_group:
            metadata["store"] = self.backend_group
        return (
            place.get_uri(),
            len(data),
            checksum.hexdigest(),
            multihash.hexdigest(),
            metadata,
        )

    @capabilities.check
    def delete(self, location, context=None):
        self._stored(location)
        del IMAGES[location.store_location.shelf, location.store_location.image_id]

    def set_acls(self, location, public=False, read_tenants=None, write_tenants=None, context=None):
        self._stored(location)
        read_tenants.append("added by the driver")
        write_tenants.append("added by the driver")
        ACLS.append((public, read_tenants, write_tenants, context))


def make_store(conf, backend=None):
    """Make a store: an entry point may name a function."""
    return Store(conf, backend)


make_store.OPTIONS = Store.OPTIONS
