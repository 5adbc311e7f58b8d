# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it shows what it does
"""Store an image with the memory driver, read a part of it, and remove it."""

import io

from oslo_config import cfg

import glance_store

conf = cfg.ConfigOpts()
conf.register_opt(cfg.DictOpt("enabled_backends"))
conf([], default_config_files=["glance-api.conf"])
glance_store.register_store_opts(conf)
glance_store.create_multi_stores(conf)
glance_store.verify_store()

data = b"the bytes of an image"
uri, size, checksum, metadata = glance_store.add(conf, "first", io.BytesIO(data), len(data), None)
print(uri, size, metadata)

chunks, size = glance_store.get(uri, "scratch", offset=4, chunk_size=5)
print(b"".join(chunks), size)

glance_store.delete(uri, "scratch")
