# SPDX-License-Identifier: Apache-2.0
"""Connections and processes: one for a store, none across a fork, none that holds up an exit."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from glance_store.testing.concurrency import in_a_child
from tests.drivers.rbd.conftest import MIB, Bed, add, delete, locate, read
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.rbd.conftest import Program

pytestmark = pytest.mark.services

DATA = os.urandom(3 * MIB + 1)


def test_one_connection_for_all_operations(bed: Bed) -> None:
    store = bed.store()
    ids = set()
    for _number in range(2):
        uri = add(store, DATA)
        assert read(store, uri) == DATA
        delete(store, uri)
        with store.get_connection() as connection:
            ids.add(connection.get_instance_id())
            assert connection.get_fsid() == bed.ceph.fsid
    assert len(ids) == 1


def test_a_store_that_is_thrown_away_ends_its_connection(bed: Bed) -> None:
    store = bed.store()
    assert store.check_health()
    with store.get_connection() as native:
        assert native.state == "connected"
    del store
    gc.collect()
    until(lambda: native.state == "shutdown", "the connection ends, with its threads")


def test_new_options_mean_a_new_connection(bed: Bed) -> None:
    store = bed.store()
    conf = bed.ceph.client_conf("other.conf")
    with store.get_connection() as connection:
        before = connection.get_instance_id()
    store.conf.set_override("rbd_store_ceph_conf", str(conf), group="ceph")
    store.configure(re_raise_bsc=True)
    with store.get_connection() as connection:
        assert connection.get_instance_id() != before


def test_fork_in_the_middle_of_transfers(bed: Bed) -> None:
    """What the parent has open is left alone by the child, even when the child collects it."""
    store = bed.store()
    uri = add(store, DATA)
    half = store.get(locate(store, uri))[0]
    first = next(half)

    def child() -> None:
        nonlocal half
        half = None  # type: ignore[assignment]
        gc.collect()
        other = add(store, DATA)
        assert read(store, other) == DATA
        delete(store, other)

    in_a_child(child)
    assert first + b"".join(half) == DATA


def test_forked_processes_have_addresses_of_their_own(bed: Bed) -> None:
    """Else Ceph, told that one of them is dead, would shut out all of them."""

    def address() -> str:
        with bed.store().get_connection() as connection:
            return str(connection.get_addrs())

    addresses = [address()]
    for _number in range(2):
        reading, writing = os.pipe()
        in_a_child(lambda pipe=writing: os.write(pipe, address().encode()))
        addresses.append(os.read(reading, 100).decode())
        os.close(reading)
        os.close(writing)
    addresses.append(address())
    assert len(set(addresses)) == 4


FORKS = """
store = bed.store()
uri = add(store, b"data" * 1000)
chunks = store.get(locate(store, uri))[0]
child = os.fork()
if child == 0:
    assert read(store, uri) == b"data" * 1000
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
assert b"".join(chunks) == b"data" * 1000
"""
LEAVES_ALL_OPEN = """
import itertools
store = bed.store()
uri = add(store, b"data" * 1000)
chunks = store.get(locate(store, uri))[0]
writer = store.open_writer("unfinished", 1000)
print("done", flush=True)
"""


DOWNLOADS = int(os.environ.get("GLANCE_STORE_SHORT_DOWNLOADS", "250"))
READS = """
# What the library does in its threads is put off.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
store = bed.store()
for _number in range(int(sys.argv[2])):
    store.get(locate(store, sys.argv[1]))[0].close()
print("done", flush=True)
"""


def test_many_short_downloads(bed: Bed, program: Callable[..., Program]) -> None:
    """Images that are closed as soon as they are open; on a busy core librbd can crash at that.

    With ``GLANCE_STORE_SHORT_DOWNLOADS=2500`` a driver that opened them at a snapshot did.
    """
    uri = add(bed.store(), DATA)
    running = [program(READS, uri, str(DOWNLOADS)) for _number in range(4)]
    for one in running:
        output, errors = one.end(timeout=240)
        assert (output.strip(), errors, one.process.returncode) == ("done", "", 0)


@pytest.mark.parametrize(("code", "said"), [(FORKS, "7"), (LEAVES_ALL_OPEN, "done")])
def test_exit(bed: Bed, program: Callable[..., Program], code: str, said: str) -> None:
    """A process ends with its own exit code, whatever it and its parent have open."""
    for _number in range(5):
        one = program(code)
        output, errors = one.end()
        assert (output.strip(), errors, one.process.returncode) == (said, "", 0)
        bed.clean()
