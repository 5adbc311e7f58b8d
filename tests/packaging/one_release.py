# SPDX-License-Identifier: Apache-2.0
"""Carries out operations on a file store with the release that it imports, and prints the outcomes.

A process of its own, started by `test_mixed_releases`; it uses what both releases have.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

import glance_store

STORE = "images"


def content(seed: int, size: int) -> bytes:
    """Return an image, three quarters of it zeros."""
    return ((bytes([seed]) * 16384 + bytes(49152)) * (size // 65536 + 1))[:size]


def configured(request: dict[str, Any]) -> cfg.ConfigOpts:
    # The release before looks at the one of the process.
    conf = cfg.CONF
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf.set_override("enabled_backends", {STORE: "file"})
    glance_store.register_store_opts(conf)
    conf.set_override("default_backend", STORE, group="glance_store")
    conf.set_override("filesystem_store_datadir", request["datadir"], group=STORE)
    conf.set_override("filesystem_thin_provisioning", request["thin"], group=STORE)
    glance_store.create_multi_stores(conf)
    return conf


def main() -> None:
    request = json.loads(sys.argv[1])
    conf = configured(request)

    def add(image: str, seed: int, size: int) -> list[Any]:
        data = io.BytesIO(content(seed, size))
        return list(glance_store.add_with_multihash(conf, image, data, size, STORE, "sha256")[:2])

    def get(uri: str) -> str:
        chunks, _size = glance_store.get(uri, STORE)
        return hashlib.sha256(b"".join(chunks)).hexdigest()

    calls: dict[str, Callable[..., Any]] = {
        "add": add,
        "get": get,
        "size": lambda uri: glance_store.get_size_from_uri_and_backend(uri, STORE),
        "delete": lambda uri: glance_store.delete(uri, STORE),
    }
    outcomes = []
    for name, *arguments in request["operations"]:
        try:
            outcomes.append(calls[name](*arguments))
        except glance_store.GlanceStoreException as exc:
            outcomes.append(type(exc).__name__)
    print(json.dumps({"file": glance_store.__file__, "outcomes": outcomes}))


if __name__ == "__main__":
    try:
        main()
    except Exception as exc:  # noqa: BLE001 - without the traceback, which shows sources
        sys.exit(f"{type(exc).__name__}: {exc}")
