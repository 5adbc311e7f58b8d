# SPDX-License-Identifier: Apache-2.0
"""What transfers cost: memory that all of them share, and bytes that are hashed."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from glance_store.testing import image
from glance_store.transfer.memory import Share
from tests.drivers.swift.conftest import locate
from tests.drivers.swift.loopback import Answer, Seen, Stored, md5, store_at
from tests.waiting import until

if TYPE_CHECKING:
    from tests.drivers.swift.loopback import Act

MIB = 1024 * 1024
PIECE = bytes(MIB)


class Zeros:
    """A source of zeros that counts what is taken from it.

    :param size: bytes
    :param taken: called with the bytes of each read
    """

    def __init__(self, size: int, taken: Any) -> None:
        self._left = size
        self._taken = taken

    def read(self, length: int) -> bytes:
        data = PIECE[: min(length, self._left)]
        self._left -= len(data)
        self._taken(len(data))
        return data


class Traffic:
    """How far the sources are ahead of the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.read = 0
        self.arrived = 0
        self.ahead = 0

    def taken(self, length: int) -> None:
        with self._lock:
            self.read += length
            self.ahead = max(self.ahead, self.read - self.arrived)

    def came(self, length: int) -> None:
        with self._lock:
            self.arrived += length

    def is_still(self) -> bool:
        """Tell whether nothing has been read for a moment."""
        before = self.read
        threading.Event().wait(0.3)
        return before > 0 and before == self.read


def test_five_uploads_fit_the_memory_of_the_store(server):
    """Not each by itself, but all together; nothing is stored here but what is counted."""
    traffic = Traffic()
    go_on = threading.Event()

    def rule(seen: Seen, act: Act) -> Answer:
        if seen.method == "HEAD" and "/" in seen.name:
            return Answer(404)
        if seen.method != "PUT":
            return act()
        digest = md5()
        if seen.query:
            assert json.loads(seen.body)
            return Answer(201)
        assert go_on.wait(60)
        while data := seen.read(MIB):
            digest.update(data)
            traffic.came(len(data))
            seen._got = b""
        return Answer(201, headers={"ETag": digest.hexdigest()})

    server.rule = rule
    store = store_at(server)
    size = 150 * MIB
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        uploads = [
            pool.submit(store.add, f"image{number}", Zeros(size, traffic.taken), size, "sha256")
            for number in range(5)
        ]
        try:
            # The server takes nothing: they go as far as they can.
            until(traffic.is_still, "the uploads wait for the server")
        finally:
            go_on.set()
        for each in uploads:
            assert each.result(120)[1] == size
    assert traffic.read == traffic.arrived == 5 * size
    # It was made use of, too; and the kernel holds some of it.
    assert 128 * MIB < traffic.ahead <= (256 + 64) * MIB


def test_upload_waits_for_no_memory_that_others_have(server):
    """Their clients may be slow. It is sent while it comes in, in the segments that are usual."""
    store = store_at(server)
    others = Share(store._memory)
    others.take(store._memory.size)
    data = image(66 * MIB)
    uri, size, *_more = store.add("image", io.BytesIO(data), len(data), "sha256")
    assert size == len(data)
    segments = [name for name in server.objects if "/image-" in name]
    assert len(segments) == 3
    others.close()
    chunks, _size = store.get(locate(store, uri))
    assert b"".join(chunks) == data


def test_download_that_is_read_slowly(server):
    """What is requested side by side is memory of the store: no more than half of it."""
    size = 64 * MIB
    server.objects["images/image"] = Stored(bytes(size), {})
    sent = Traffic()
    threads: set[int] = set()
    store = store_at(server, memory=32, read_concurrency=8)
    # Ranges of 8 MiB: two of them fit into half of it.
    store.READ_CHUNKSIZE = MIB
    slow = threading.Event()

    def rule(seen: Seen, act: Act) -> Answer:
        answer = act()
        if seen.method == "GET":
            threads.add(threading.get_ident())
            answer.pace = lambda length: (sent.taken(length), slow.wait(0.05))  # so slow
        return answer

    server.rule = rule
    got = 0
    chunks, _size = store.get(locate(store, "swift+config://ref1/images/image"))
    for chunk in chunks:
        sent.came(len(chunk))
        got += len(chunk)
        if len(threads) > 1 and not slow.is_set():
            # Several are on their way: now nothing is taken, and the server is fast.
            slow.set()
            until(sent.is_still, "the download waits for its reader")
    assert got == size
    assert slow.is_set(), "there was one connection only"
    # Two begin with a quarter of a range; and what the kernels hold of each of them.
    assert 4 * MIB < sent.ahead <= 16 * MIB + 24 * MIB


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """Lengths of all that the driver hashes, besides the checksums of the image itself."""
    lengths: list[int] = []
    real = hashlib.md5

    class Noting:
        def __init__(self, data: bytes = b"", **given: Any) -> None:
            lengths.append(len(data))
            self._digest = real(data, **given)

        def update(self, data: Any) -> None:
            lengths.append(len(data))
            self._digest.update(data)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr(hashlib, "md5", Noting)
    return lengths


@pytest.mark.parametrize("size", [0, 5 * MIB, 20 * MIB], ids=["empty", "held", "streamed"])
def test_md5_of_one_object_is_computed_once(server, hashed, size):
    """It is that of the image."""
    data = image(size)
    store = store_at(server, large_object_size=5120)
    (_uri, _size, checksum, *_rest) = store.add("image", io.BytesIO(data), size or None, "sha256")
    assert checksum == md5(data).hexdigest()
    assert server.data("images/image") == data
    assert sum(hashed) == 0


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
def test_segments_are_hashed_where_they_are_verified(server, hashed, verify, known):
    """The manifest is right in either case: Swift compares it with what it has stored."""
    size = 3 * 1024 * 1000 + 7
    data = image(size)
    store = store_at(server, large_object_size=1, large_object_chunk_size=1, verify_segments=verify)
    store.add("image", io.BytesIO(data), size if known else 0, "sha256")
    entries = server.objects["images/image"].entries
    assert entries is not None
    assert [entry["size_bytes"] for entry in entries] == [1024000] * 3 + [7]
    assert server.data("images/image") == data
    # And the ETag of the manifest.
    assert sum(hashed) == 4 * 32 + (size if verify else 0)


@pytest.mark.parametrize("verify", [True, False])
def test_streamed_segments_are_hashed_where_they_are_verified(server, hashed, verify):
    size = 35 * 1024 * 1000
    data = image(size)
    store = store_at(
        server,
        large_object_size=1,
        large_object_chunk_size=17,
        memory=16,
        verify_segments=verify,
    )
    store.add("image", io.BytesIO(data), size, "sha256")
    entries = server.objects["images/image"].entries
    assert entries is not None
    assert len(entries) == 3
    assert server.data("images/image") == data
    assert sum(hashed) == 3 * 32 + (size if verify else 0)


@pytest.mark.parametrize(
    ("size", "segments"),
    [(64 * MIB - 1, None), (64 * MIB, [32 * MIB] * 2), (70 * MIB, [32 * MIB, 32 * MIB, 6 * MIB])],
)
def test_sizes_at_the_defaults(server, size, segments):
    store = store_at(server)
    store.add("image", io.BytesIO(bytes(size)), size, "sha256")
    entries = server.objects["images/image"].entries
    found = None if entries is None else [entry["size_bytes"] for entry in entries]
    assert found == segments
