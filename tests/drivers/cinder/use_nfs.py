# SPDX-License-Identifier: Apache-2.0
"""Use a store of volumes on NFS in each way there is; run where mounts are seen by nobody else.

Options of the store come as JSON on the standard input; what has been seen leaves as JSON on the
standard output.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from glance_store.testing import image
from tests.drivers.cinder.stores import CinderStore, Context, location, make_store

GiB = 1024**3
SIZE = 5_000_000


class Grower:
    """A source that ends a little behind the first GiB."""

    def __init__(self) -> None:
        self.left = GiB + 1_000_000

    def read(self, length: int) -> bytes:
        length = min(length, self.left)
        self.left -= length
        return b"n" * length


def main() -> None:
    """Store, read by several at once, grow, and fail to store."""
    options = json.load(sys.stdin)
    base = Path(options["cinder_mount_point_base"])
    store = make_store(options, CinderStore)
    data = image(SIZE)
    seen: dict[str, Any] = {"mounts": []}

    def mounted() -> bool:
        return str(base) in Path("/proc/self/mounts").read_text()

    def add(source: Any, size: int) -> str:
        uri: str = store.add(str(uuid.uuid4()), source, size, "sha256", context=Context())[0]
        return uri

    places = [add(io.BytesIO(data), size) for size in (SIZE, 0)]
    seen["mounts"].append(mounted())
    # Of two images on one share, the first that is closed must not unmount it for the other.
    first, second = (store.get(location(store, uri))[0] for uri in places)
    begun = next(second)
    seen["mounts"].append(mounted())
    first.close()
    seen["mounts"].append(mounted())
    seen["states"] = len(list((base / "_state").glob("mount_users_*")))
    seen["read"] = begun + b"".join(second) == data
    seen["mounts"].append(mounted())
    found: list[bytes] = []
    readers = [
        threading.Thread(
            target=lambda uri=uri: found.append(b"".join(store.get(location(store, uri))[0]))
        )
        for uri in places
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seen["together"] = found == [data, data]
    grown = add(Grower(), 0)
    seen["grown"] = store.get_size(location(store, grown)) - GiB
    end = b"".join(store.get(location(store, grown), offset=GiB - 5)[0])
    seen["end"] = end == b"n" * 1_000_005
    try:
        add(io.BytesIO(data), SIZE + 1)
    except Exception as exc:  # noqa: BLE001 - it is looked at by the test
        seen["error"] = type(exc).__name__
    for uri in (*places, grown):
        store.delete(location(store, uri))
    seen["mounts"].append(mounted())
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
