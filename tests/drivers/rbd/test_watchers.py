# SPDX-License-Identifier: Apache-2.0
"""Clients that died while they opened an image, and that the cluster has never noticed since.

An OSD, such as that of Ceph 16.2.15, keeps such a watcher until it is started again
(https://tracker.ceph.com/issues/58120): to everybody else the image looks open for ever.
"""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store._drivers.rbd.image import OpenImage
from glance_store._drivers.rbd.leftovers import new_name
from glance_store._drivers.rbd.watchers import _has_lock, living
from tests.drivers.rbd.conftest import MIB, Bed, add, delete, new_id, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers.rbd.conftest import Program

pytestmark = pytest.mark.services

DATA = os.urandom(MIB + 3)
WATCH = """
cluster = rados.Rados(conffile=ceph.conf, rados_id=ceph.user)
cluster.connect()
pool = cluster.open_ioctx(ceph.pool)
pool.stat(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
watch = pool.watch(sys.argv[1], lambda *arguments: None)
print("watching", flush=True)
sys.stdin.read()
"""
# The same, by a client that has the image open with RBD's lock.
LOCK_AND_WATCH = WATCH.replace(
    'print("ready"',
    """import rbd
image = rbd.Image(pool, sys.argv[2])
image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
print("ready\"""",
)
TRIES = 30
# Seconds in which the cluster notices the death of clients that it waits for.
NOTICED = 30.0


class Watchers:
    """Other clients that have an image open.

    :param bed: the cluster
    :param program: starts processes
    """

    def __init__(self, bed: Bed, program: Callable[..., Program]) -> None:
        self._bed = bed
        self._program = program

    def _ready(self, image_id: str, code: str = WATCH) -> Program:
        started = self._program(code, self.header(image_id), image_id)
        assert started.line() == "ready"
        return started

    def begin(self, image_id: str) -> Program:
        """Return a process that has the image open."""
        started = self._ready(image_id)
        started.go_on()
        assert started.line() == "watching"
        return started

    def leave_stale(self, image_id: str, code: str = WATCH) -> None:
        """Let a client die in the moment in which the OSD takes it in.

        The OSD finds its request and the end of its connection at once; which one it handles first
        is a matter of luck.
        """
        for _try in range(TRIES):
            started = self._ready(image_id, code)
            self._bed.ceph.osd.freeze()
            try:
                started.go_on()
                time.sleep(0.2)
                started.kill()
            finally:
                self._bed.ceph.osd.thaw()
            deadline = time.monotonic() + NOTICED
            # Before it has noticed the others, the OSD waits for their answers in vain.
            while self._bed.answers(self.header(image_id)) is None:
                assert time.monotonic() < deadline, "a dead client is not noticed, but waited for"
            if self.count(image_id):
                return
        pytest.skip("this Ceph has noticed the death of all clients")

    def header(self, image_id: str) -> str:
        """Return the object that is watched."""
        with self._bed.image(image_id) as image:
            return f"rbd_header.{image.id()}"

    def count(self, image_id: str) -> int:
        """Return how many watchers the cluster names."""
        with self._bed.image(image_id) as image:
            return len(list(image.watchers_list()))


@pytest.fixture
def watchers(bed: Bed, program: Callable[..., Program]) -> Iterator[Watchers]:
    """Clients that have images open; those that are dead go with the headers of these."""
    import rbd

    found = Watchers(bed, program)
    yield found
    # Clones go before the images that they were made from.
    list(bed._sweep())
    for name in bed.names():
        bed.pool.remove_object(found.header(name))
    for entry in list(rbd.RBD().trash_list(bed.pool)):
        bed.pool.remove_object(f"rbd_header.{entry['id']}")
        rbd.RBD().trash_remove(bed.pool, entry["id"])


def objects_of(bed: Bed, header: str) -> list[str]:
    """Return the objects of an image, by the name of its header."""
    image_id = header.partition(".")[2]
    return [item.key for item in bed.pool.list_objects() if image_id in item.key]


def remains(bed: Bed) -> tuple[list[str], list[str]]:
    """Return the images of the pool, and what is in its trash."""
    return bed.names(), bed.trash()


@pytest.mark.usefixtures("short_watch")
def test_leftover_of_a_client_whose_death_nobody_noticed_is_replaced(
    bed: Bed, watchers: Watchers, caplog: pytest.LogCaptureFixture
) -> None:
    image_id = new_id()
    left = new_name(image_id)
    bed.create(left, os.urandom(3 * MIB))
    watchers.leave_stale(left)
    header = watchers.header(left)
    assert len(objects_of(bed, header)) > 2
    caplog.set_level("INFO", logger="glance_store")
    uri = add(bed.store(), DATA, image_id)
    assert "has died, which Ceph never noticed" in caplog.text
    assert read(bed.store(), uri) == DATA
    assert remains(bed) == ([image_id], [])
    assert objects_of(bed, header) == []


@pytest.mark.usefixtures("short_watch")
@pytest.mark.parametrize("state", ["answers", "silent"])
def test_living_client_counts_beside_one_that_has_died(
    bed: Bed, watchers: Watchers, state: str
) -> None:
    image_id = new_id()
    left = new_name(image_id)
    bed.create(left, DATA)
    watchers.leave_stale(left)
    other = watchers.begin(left)
    if state == "silent":
        other.process.send_signal(signal.SIGSTOP)
    with pytest.raises(exceptions.Duplicate, match="being uploaded"):
        add(bed.store(), DATA, image_id)
    with pytest.raises(exceptions.InUseByStore, match="open for writing"):
        delete(bed.store(), f"rbd://{left}")
    with bed.image(left) as image:
        assert image.read(0, len(DATA)) == DATA


@pytest.mark.usefixtures("short_watch")
def test_image_is_deleted_when_nobody_noticed_the_death_of_a_client(
    bed: Bed, watchers: Watchers
) -> None:
    uri = add(bed.store(), DATA)
    image_id = uri.split("/")[-2]
    watchers.leave_stale(image_id)
    header = watchers.header(image_id)
    delete(bed.store(), uri)
    assert remains(bed) == ([], [])
    assert objects_of(bed, header) == []
    with pytest.raises(exceptions.NotFound):
        delete(bed.store(), uri)


@pytest.mark.usefixtures("short_watch")
def test_image_with_clones_keeps_its_snapshot(bed: Bed, watchers: Watchers) -> None:
    import rbd

    uri = add(bed.store(), DATA)
    image_id = uri.split("/")[-2]
    rbd.RBD().clone(bed.pool, image_id, "snap", bed.pool, "clone", features=61)
    watchers.leave_stale(image_id)
    with pytest.raises(exceptions.InUseByStore, match="clones"):
        delete(bed.store(), uri)
    assert read(bed.store(), uri) == DATA


@pytest.mark.usefixtures("short_watch")
@pytest.mark.parametrize("user", ["snapshot", "clone"])
def test_deleted_image_whose_data_others_need_goes_to_the_trash(
    bed: Bed, watchers: Watchers, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its header, and with it the dead client, stay: without it the data would be lost."""
    import rbd

    uri = add(bed.store(), DATA)
    image_id = uri.split("/")[-2]
    if user == "clone":
        # Of the kind that needs no protected snapshot, and keeps the one that it was made from.
        parent, child = f"{bed.ceph.pool}/{image_id}@snap", f"{bed.ceph.pool}/clone"
        bed.command("--rbd-default-clone-format=2", "clone", parent, child)
    else:
        with bed.image(image_id, read_only=False) as image:
            image.create_snap("backup")
    watchers.leave_stale(image_id)
    delete(bed.store(), uri)
    assert image_id not in bed.names()
    assert bed.trash() == [image_id]
    if user == "clone":
        with bed.image("clone") as image:
            assert image.read(0, len(DATA)) == DATA
    else:
        (entry,) = rbd.RBD().trash_list(bed.pool)
        with rbd.Image(bed.pool, image_id=entry["id"], snapshot="backup", read_only=True) as image:
            assert image.read(0, len(DATA)) == DATA
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.usefixtures("short_watch")
def test_client_that_died_while_it_opened_an_image_once_more(bed: Bed, watchers: Watchers) -> None:
    """As an upload does to give its image the name: it has RBD's lock by its first opening."""
    uri = add(bed.store(), DATA)
    complete = uri.split("/")[-2]
    image_id = new_id()
    left = new_name(image_id)
    bed.create(left, DATA)
    for name in (left, complete):
        watchers.leave_stale(name, LOCK_AND_WATCH)
    other = add(bed.store(), DATA[::-1], image_id)
    assert read(bed.store(), other) == DATA[::-1]
    delete(bed.store(), uri)
    assert remains(bed) == ([image_id], [])


def test_lock_of_rbd(bed: Bed) -> None:
    """It names the watcher that has it."""
    import rbd

    image_id = new_id()
    bed.create(image_id, DATA)
    with (
        bed.store()._cluster.lease(bed.ceph.pool) as lease,
        bed.image(image_id, read_only=False) as owner,
    ):
        for held in (False, True):
            if held:
                owner.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
            with OpenImage(lease, image_id) as image:
                (watcher,) = image.watchers()
                assert _has_lock(image, *watcher) is held


def test_bindings_that_cannot_ask(bed: Bed) -> None:
    """With old ones, every client that the cluster names counts as alive."""
    image_id = new_id()
    bed.create(image_id, DATA)
    with (
        bed.image(image_id, read_only=False),
        bed.store()._cluster.lease(bed.ceph.pool) as lease,
        OpenImage(lease, image_id) as image,
    ):
        assert living(lease, image) == 1
        deaf = SimpleNamespace(access=object())
        assert living(deaf, image) == 1  # type: ignore[arg-type]
