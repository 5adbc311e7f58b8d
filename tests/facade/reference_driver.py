# SPDX-License-Identifier: Apache-2.0
"""The life of an image in a driver of an earlier release that is installed as an outside driver.

A process of its own, started by `test_reference_drivers`. It prints what each step came to, and of
an exception only the class and the text: the driver's source is not shown to anybody.
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
from glance_store import exceptions, location

DATA = bytes(range(256)) * 4096
MULTIHASH = hashlib.sha256(DATA).hexdigest()
STORE = "vendor"


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or which exception of the library it raises."""
    try:
        return call()
    except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
        return type(exc).__name__


def created(mode: str, entry: str, options: dict[str, Any]) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    group = STORE if mode == "multi" else "glance_store"
    if mode == "multi":
        conf.set_override("enabled_backends", {STORE: entry})
        glance_store.register_store_opts(conf)
    else:
        glance_store.register_opts(conf)
        conf.set_override("stores", [entry], group=group)
    for name, value in options.items():
        conf.set_override(name, value, group=group)
    if mode == "multi":
        glance_store.create_multi_stores(conf)
    else:
        glance_store.create_stores(conf)
    return conf


class Multi:
    """The functions of multi-store mode."""

    def __init__(self, conf: cfg.ConfigOpts, _scheme: str) -> None:
        self.conf = conf

    def add(self, image_id: str) -> Any:
        source = io.BytesIO(DATA)
        return glance_store.add_with_multihash(
            self.conf, image_id, source, len(DATA), STORE, "sha256"
        )

    def get(self, uri: str, **part: int) -> Any:
        return glance_store.get(uri, STORE, **part)

    def size(self, uri: str) -> int:
        return glance_store.get_size_from_uri_and_backend(uri, STORE)

    def delete(self, uri: str) -> None:
        glance_store.delete(uri, STORE)

    def acls(self, uri: str) -> None:
        glance_store.set_acls_for_multi_store(uri, STORE, public=True)


class Single:
    """The functions of single-store mode."""

    def __init__(self, conf: cfg.ConfigOpts, scheme: str) -> None:
        self.conf, self.scheme = conf, scheme

    def add(self, image_id: str) -> Any:
        source = io.BytesIO(DATA)
        return glance_store.add_to_backend_with_multihash(
            self.conf, image_id, source, len(DATA), "sha256", self.scheme
        )

    def get(self, uri: str, **part: int) -> Any:
        return glance_store.get_from_backend(uri, **part)

    def size(self, uri: str) -> int:
        return glance_store.get_size_from_backend(uri)

    def delete(self, uri: str) -> None:
        glance_store.delete_from_backend(uri)

    def acls(self, uri: str) -> None:
        glance_store.set_acls(uri, public=True)


def read(stores: Any, uri: str, **part: int) -> str:
    data, _size = stores.get(uri, **part)
    whole = b"".join(data)
    wanted = DATA[part["offset"] :][: part["chunk_size"]] if part else DATA
    return "the image" if whole == wanted else f"{len(whole)} other bytes"


def main(mode: str, entry: str, scheme: str, options: dict[str, Any], uri: str | None) -> Any:
    """Return what each step came to, by its name; with a location, of an image that is there."""
    stores = (Multi if mode == "multi" else Single)(created(mode, entry, options), scheme)
    if mode == "multi":
        loaded = location.SCHEME_TO_CLS_BACKEND_MAP[scheme][STORE]["store"]
    else:
        loaded = location.SCHEME_TO_CLS_MAP[scheme]["store"]
    steps: dict[str, Any] = {"module": type(loaded).__module__}
    if uri is None:
        uri, size, _checksum, multihash, metadata = stores.add("image")
        steps["added"] = [size, multihash == MULTIHASH, metadata.get("store")]
        steps["again"] = outcome(lambda: stores.add("image"))
    else:
        steps["add"] = outcome(lambda: stores.add("image"))
    steps["size"] = stores.size(uri)
    steps["whole"] = read(stores, uri)
    steps["range"] = outcome(lambda: read(stores, uri, offset=1000, chunk_size=70000))
    steps["acls"] = outcome(lambda: stores.acls(uri))
    steps["deleted"] = outcome(lambda: stores.delete(uri))
    steps["after"] = outcome(lambda: stores.size(uri))
    return steps


if __name__ == "__main__":
    # What the driver imports besides this library; at the end, for this library to come first.
    sys.path.append(sys.argv[1])
    try:
        print(json.dumps(main(**json.loads(sys.argv[2]))))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the test says it
        print(json.dumps({"failed": f"{type(exc).__name__}: {exc}"}))
