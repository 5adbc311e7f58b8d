# SPDX-License-Identifier: Apache-2.0
"""Connections: reused, closed, and never shared between threads or processes."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading

import pytest

from glance_store import exceptions
from glance_store.location import get_location_from_uri
from tests.services.http_server import Answer, File

# Larger than what the buffers of a connection take: an unread rest keeps the server waiting.
LARGE = random.Random(4).randbytes(24 * 1024 * 1024)
IMAGE = LARGE[:100_000]


def test_closed_early(web, http):
    http.store.READ_CHUNKSIZE = 1000
    chunks, _size = http.get(web.serve("/image", LARGE))
    assert next(chunks) == LARGE[:1000]
    chunks.close()
    assert web.wait_until_idle() == 0
    assert list(chunks) == []
    chunks.close()


def test_nothing_is_asked_for_after_the_end(web, http):
    location = get_location_from_uri(web.serve("/image", File(LARGE, etag='"a"')))
    reader = http.store.open_reader(location)
    assert reader.read_at(0, 1000) == LARGE[:1000]
    reader.interrupt()
    with pytest.raises(exceptions.BackendException, match="closed"):
        reader.read_at(5000, 1000)
    reader.close()
    assert len(web.requests) == 1
    assert web.wait_until_idle() == 0


def test_closed_unread(web, http):
    chunks, _size = http.get(web.serve("/image", LARGE))
    chunks.close()
    assert web.wait_until_idle() == 0


def test_thrown_away_half_way(web, http):
    http.store.READ_CHUNKSIZE = 1000
    chunks, _size = http.get(web.serve("/image", LARGE))
    next(chunks)
    del chunks
    gc.collect()
    assert web.wait_until_idle() == 0


def test_r75_the_connection_of_get_size_is_not_left_behind(web, http):
    web.serve("/image", File(LARGE, ranges=False))
    for _time in range(5):
        assert http.size(web.url("/image")) == len(LARGE)
    assert web.wait_until_idle() == 0
    web.serve("/refused", lambda request: Answer(405 if request.method == "HEAD" else 200, LARGE))
    assert http.size(web.url("/refused")) == len(LARGE)
    assert web.wait_until_idle() == 0


def test_a_connection_that_was_read_to_the_end_is_used_again(web, http):
    uri = web.serve("/image", IMAGE)
    for _time in range(5):
        assert http.read(uri) == IMAGE
        assert http.read(uri, 10, 20) == IMAGE[10:30]
    assert web.accepted == 1


def test_downloads_side_by_side(web, http):
    images = {f"/{number}": random.Random(number).randbytes(300_000) for number in range(8)}
    for path, image in images.items():
        web.serve(path, image)
    http.store.READ_CHUNKSIZE = 10_000
    results = {}

    def read(path):
        for _time in range(3):
            results[path] = http.read(web.url(path))

    threads = [threading.Thread(target=read, args=(path,)) for path in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == images


def test_one_reader_for_several_threads(web, http):
    from glance_store.location import get_location_from_uri

    reader = http.store.open_reader(get_location_from_uri(web.serve("/image", IMAGE)))
    wrong = []

    def read(seed):
        numbers = random.Random(seed)
        for _time in range(10):
            offset = numbers.randrange(len(IMAGE))
            if reader.read_at(offset, 50) != IMAGE[offset : offset + 50]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.close()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own(web, http):
    uri = web.serve("/image", IMAGE)
    assert http.read(uri) == IMAGE
    assert web.accepted == 1
    child = os.fork()
    if child == 0:
        # Nothing of pytest may run in the child.
        status = 1
        try:
            status = 0 if http.read(uri) == IMAGE and http.size(uri) == len(IMAGE) else 2
        finally:
            os._exit(status)
    # The parent goes on with its own connection at the same time.
    assert http.read(uri) == IMAGE
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert web.accepted == 2
    assert http.read(uri) == IMAGE
    assert web.accepted == 2


def test_nothing_is_connected_before_it_is_needed(web, http):
    http.store.get_schemes()
    http.store.check_health()
    assert http.store._sessions._by_process == {}
    assert web.accepted == 0


def test_one_session_for_all_threads(http):
    started = threading.Barrier(8)
    sessions = set()

    def look():
        started.wait()
        sessions.add(http.store._sessions.current())

    threads = [threading.Thread(target=look) for _number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 1


@pytest.mark.parametrize("options", [{}, {"http_store_allowed_hosts": ["127.0.0.1"]}])
def test_idle_connections_are_probed(web, http_store, options, socket_options):
    """A firewall that has forgotten one would let the next download wait for its time to read."""
    http_store(**options).get(web.serve("/image", IMAGE))[0].close()
    assert (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60) in socket_options
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in socket_options
