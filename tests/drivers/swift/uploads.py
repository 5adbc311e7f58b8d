# SPDX-License-Identifier: Apache-2.0
"""Uploads of the tests: the ways that one can go, and which of its requests is which."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store.testing import image
from tests.drivers.swift.conftest import SEGMENT, locate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glance_store._drivers.swift import BaseStore
    from tests.faults.proxy import FaultProxy

USER = "glance"


class Way(NamedTuple):
    """A way that an upload can go."""

    options: dict[str, Any]
    size: int  # bytes of an image that goes this way
    target: str  # end of the target of a PUT of data; empty for the name of the image
    kept: bool = True  # whether the data can be sent again


# The buffers of these need a folder: see `options_of`.
BUFFERED = "buffered"
_LARGE = {"large_object_size": 100}
_LITTLE = {"memory": 16}
WAYS = {
    "object": Way({}, 1000, ""),
    "stream-kept": Way(_LARGE, 12 * SEGMENT, ""),
    "stream": Way({**_LARGE, **_LITTLE}, 17 * SEGMENT, "", kept=False),
    "segments": Way({"thread_pool_size": 1}, 3 * SEGMENT + 7, "-00002"),
    # With what is read ahead it fits once, and not twice.
    "streamed-kept": Way({"memory": 24, "large_object_chunk_size": 13}, 27 * SEGMENT, "-00002"),
    "streamed": Way({**_LITTLE, "large_object_chunk_size": 17}, 35 * SEGMENT, "-00002", kept=False),
    BUFFERED: Way({"swift_buffer_on_upload": True}, 3 * SEGMENT + 7, "-00002"),
}


def options_of(way: str, folder: Path) -> dict[str, Any]:
    """Return the options of one of `WAYS`.

    :param way: its name
    :param folder: for the file of a way that buffers
    """
    options = WAYS[way].options
    return {**options, "swift_upload_buffer_dir": str(folder)} if way == BUFFERED else options


def add(store: BaseStore, name: str, data: bytes, size: int | None = None, **more: Any) -> str:
    """Store an image, and return its location.

    :param size: that is announced; None for the right one
    """
    announced = len(data) if size is None else size
    uri, stored, checksum, _hash, _about = store.add(
        name, io.BytesIO(data), announced, "sha256", **more
    )
    assert (stored, checksum) == (len(data), hashlib.md5(data).hexdigest())
    return str(uri)


def numbers(proxy: FaultProxy, method: str, ending: str) -> list[int]:
    """Return the numbers of the requests of this kind since the proxy was cleared."""
    return [
        request.number
        for request in proxy.requests
        if request.method == method and request.target.endswith(ending)
    ]


def count(store: BaseStore, proxy: FaultProxy, method: str, ending: str, data: bytes) -> int:
    """Return which request of an upload, and of all to come, is the first of this kind.

    :param ending: of its target; empty for the name of the image
    """
    # The first one also makes the container, and asks the cluster what it can do.
    store.delete(locate(store, add(store, "first", data)))
    proxy.clear()
    uri = add(store, "first", data)
    number = numbers(proxy, method, ending or "/first")[0]
    store.delete(locate(store, uri))
    proxy.clear()
    return number


def count_way(store: BaseStore, proxy: FaultProxy, way: str) -> tuple[int, bytes]:
    """Return which request carries data that can be failed, and an image of that way."""
    data = image(WAYS[way].size)
    return count(store, proxy, "PUT", WAYS[way].target, data), data


def behind(
    make: Callable[..., BaseStore],
    through: Callable[[str], str],
    user: str = USER,
    **options: Any,
) -> BaseStore:
    """Make a store behind the fault proxy.

    :param user: whose account it is
    """
    return make(endpoint=through(user), **options)
