# SPDX-License-Identifier: Apache-2.0
"""A process whose threads eventlet has patched, as those of older image services are.

It uploads, fails to upload, and downloads, several blocks in flight, and says so at its end.
"""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import io  # noqa: E402 - the modules that follow are to be loaded patched
import threading  # noqa: E402

import greenlet  # noqa: E402
from eventlet import patcher  # noqa: E402
from memory import BLOCK, MemoryReader, MemoryWriter, Source, Verifier, pattern  # noqa: E402

from glance_store.transfer.digest import Digests  # noqa: E402
from glance_store.transfer.download import Download  # noqa: E402
from glance_store.transfer.upload import upload  # noqa: E402

DATA = pattern(20 * BLOCK + 5)


def in_flight(parties: int) -> threading.Barrier:
    return threading.Barrier(parties, timeout=30)


def check_upload() -> None:
    barrier = in_flight(3)
    writer = MemoryWriter(concurrency=3, on_write=lambda _number: barrier.wait())
    verifier = Verifier()
    upload(io.BytesIO(DATA), writer, Digests("sha256", verifier), len(DATA), budget=5)
    writer.check_stored(DATA)
    assert verifier.data == DATA
    assert writer.most_in_flight == 3


def check_failures() -> None:
    failing = MemoryWriter(concurrency=3, failures={4: OSError("broken disk")})
    sound = MemoryWriter(concurrency=3)
    for source, writer in (
        (io.BytesIO(DATA), failing),
        (Source(DATA, failures={4: OSError("unplugged")}), sound),
    ):
        try:
            upload(source, writer, Digests("sha256"))
        except OSError:
            writer.check_aborted()
        else:
            raise AssertionError("the upload did not fail")


def check_killed() -> None:
    """An image service kills the green thread of a request that has gone away."""
    writer = MemoryWriter(concurrency=3)
    waiting = eventlet.event.Event()

    def source() -> object:
        yield DATA
        waiting.send()
        eventlet.sleep(600)

    request = eventlet.spawn(upload, source(), writer, Digests("sha256"))
    waiting.wait()
    request.kill()
    try:
        request.wait()
    except greenlet.GreenletExit:
        writer.check_aborted()
    else:
        raise AssertionError("the upload was not killed")


def check_download() -> None:
    barrier = in_flight(3)
    reader = MemoryReader(DATA[: 18 * BLOCK], 3, on_read=lambda _offset: barrier.wait())
    with Download(reader, chunk_size=BLOCK) as download:
        assert b"".join(download) == DATA[: 18 * BLOCK]
    assert reader.most_in_flight == 3
    reader.check_closed()
    reader = MemoryReader(DATA, 3)
    with Download(reader, chunk_size=BLOCK) as download:
        assert next(download) == DATA[:BLOCK]
    reader.check_closed()


def main() -> None:
    assert patcher.is_monkey_patched("thread")
    check_upload()
    check_failures()
    check_killed()
    check_download()
    print("all is well")


if __name__ == "__main__":
    main()
