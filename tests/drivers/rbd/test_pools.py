# SPDX-License-Identifier: Apache-2.0
"""Pools that change their names, rights that change, a cluster that is full: under one process."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.rbd.claim import OBJECT_PREFIX
from tests.drivers.rbd.conftest import MIB, Bed, add, delete, locate, new_id, read
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers.rbd.conftest import Program

pytestmark = pytest.mark.services

DATA = os.urandom(MIB + 3)
EVERYTHING = {"mon": "profile rbd", "osd": "profile rbd"}


def give(bed: Bed, user: str, **rights: str) -> None:
    """Give a Ceph user rights, in the place of those it has; it is made if need be."""
    caps = [word for pair in rights.items() for word in pair]
    bed.ceph.command("auth get-or-create", entity=f"client.{user}")
    bed.ceph.command("auth caps", entity=f"client.{user}", caps=caps)
    key = bed.ceph.command("auth get-key", entity=f"client.{user}")["key"]
    bed.ceph.keyring_of(user).write_text(f"[client.{user}]\n\tkey = {key}\n")


class Pools:
    """Makes, renames and removes pools, and knows which one had a name at what time."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self.history: list[tuple[float, float, str, int]] = []  # from, to, name, id
        self._now: dict[str, tuple[float, int]] = {}

    def names(self) -> list[str]:
        """Return those that are there."""
        return list(self._now)

    def make(self, name: str) -> None:
        """Make a pool for images."""
        began = time.time()
        self._bed.ceph.command("osd pool create", pool=name, pg_num=4, pool_type="replicated")
        self._bed.ceph.command("osd pool application enable", pool=name, app="rbd")
        self._bed.ceph.admin([{"writable": name}, {"rbd_init": name}])
        self._bed.cluster.wait_for_latest_osdmap()
        self._now[name] = (began, self._bed.cluster.pool_lookup(name))

    def rename(self, old: str, new: str) -> None:
        """Rename a pool."""
        began = time.time()
        self._bed.ceph.command("osd pool rename", srcpool=old, destpool=new)
        _began, number = self._end(old)
        self._now[new] = (began, number)

    def remove(self, name: str) -> None:
        """Remove a pool."""
        arguments = {"pool": name, "pool2": name, "yes_i_really_really_mean_it": True}
        self._bed.ceph.command("osd pool rm", **arguments)
        self._end(name)

    def _end(self, name: str) -> tuple[float, int]:
        began, number = self._now.pop(name)
        self.history.append((began, time.time(), name, number))
        return began, number

    def had(self, name: str, since: float, until: float) -> set[int]:
        """Return the pools that may have had a name at a moment of a time."""
        now = [(began, time.time(), there, n) for there, (began, n) in self._now.items()]
        return {
            number
            for began, ended, there, number in [*self.history, *now]
            if there == name and began <= until and since <= ended
        }


@pytest.fixture
def pools(bed: Bed) -> Iterator[Pools]:
    """Pools that go with the test."""
    found = Pools(bed)
    yield found
    for name in found.names():
        found.remove(name)


@pytest.fixture
def everything(bed: Bed) -> Iterator[Any]:
    """A connection past the driver, with rights in all pools."""
    import rados

    give(bed, "everywhere", **EVERYTHING)
    with rados.Rados(conffile=str(bed.ceph.conf), rados_id="everywhere") as cluster:
        yield cluster


WORKS = """
from glance_store import exceptions
from glance_store._drivers.rbd.connection import Lease
asked, has_moved = [0.0, 0.0], Lease.has_moved
def noted(lease):
    # The last look at the pool is what an upload promises; a process may rest a while after it.
    begun = time.time()
    moved = has_moved(lease)
    asked[:] = begun, time.time()
    return moved
Lease.has_moved = noted
store = bed.store(rbd_store_user="everywhere", rbd_store_pool="life")
number = 0
while True:
    number += 1
    name = f"{os.getpid()}-{number}"
    try:
        uri = add(store, name.encode() * 1000, name)
        print("stored", time.time(), name, *asked, flush=True)
        if number % 2:
            assert read(store, uri) == name.encode() * 1000
            delete(store, uri)
            print("deleted", time.time(), name, flush=True)
    except (exceptions.GlanceStoreException, exceptions.BackendException) as error:
        print("failed", time.time(), name, type(error).__name__, flush=True)
        time.sleep(0.02)
"""


class Worker:
    """A process that stores, reads and deletes images without end."""

    def __init__(self, process: Program) -> None:
        self._process = process
        self.said: list[list[str]] = []

    def go_on_until(self, word: str, since: float) -> None:
        """Read what it says until it says a word about something later than a moment."""
        while True:
            line = self._process.line().split()
            assert line, self._process.end()[1]
            self.said.append(line)
            if line[0] == word and float(line[1]) > since:
                return

    def finish(self) -> None:
        """End it, and take what it has said."""
        self._process.process.terminate()
        output, _errors = self._process.end()
        self.said += [line.split() for line in output.splitlines() if len(line.split()) > 2]


def test_pools_are_renamed_removed_and_made_anew(
    bed: Bed, pools: Pools, everything: Any, program: Callable[..., Program]
) -> None:
    """Under four processes: what one has stored is where its location says, at that moment."""
    import rbd

    pools.make("life")
    workers = [Worker(program(WORKS)) for _number in range(4)]

    def all_work(word: str = "stored") -> None:
        since = time.time()
        for worker in workers:
            worker.go_on_until(word, since)

    all_work()
    for number in range(3):
        pools.rename("life", f"life-{number}")
        all_work("failed")
        pools.make("life")
        all_work()
    pools.rename("life", "life-3")
    pools.rename("life-0", "life")
    all_work()
    pools.remove("life-1")
    pools.remove("life")
    all_work("failed")
    pools.make("life")
    all_work()
    for worker in workers:
        worker.finish()
    where: dict[str, int] = {}
    for name in pools.names():
        with everything.open_ioctx(name) as pool:
            where.update(dict.fromkeys(rbd.RBD().list(pool), everything.pool_lookup(name)))
    there = {everything.pool_lookup(name) for name in pools.names()}
    for worker in workers:
        gone = {line[2] for line in worker.said if line[0] == "deleted"}
        # One was about to be deleted, another to be stored, when the process ended.
        for kind, _moment, name, *more in worker.said[:-1]:
            if kind != "stored" or name in gone:
                continue
            possible = pools.had("life", *map(float, more))
            # Not where a pool that may have been the one has been removed since.
            assert where.get(name) in possible or possible - there
            assert name not in where or where[name] in possible


def test_pool_that_is_renamed_during_an_upload(bed: Bed, pools: Pools, everything: Any) -> None:
    """The image would not be where its location says: it is not stored."""
    pools.make("life")
    store = bed.store(rbd_store_user="everywhere", rbd_store_pool="life")
    writer = store.open_writer(new_id(), len(DATA))
    writer.write(0, memoryview(DATA))
    pools.rename("life", "other")
    with pytest.raises(exceptions.BackendException, match="pool life was renamed"):
        writer.commit(len(DATA))
    writer.abort()
    with everything.open_ioctx("other") as pool:
        import rbd

        assert (rbd.RBD().list(pool), list(rbd.RBD().trash_list(pool))) == ([], [])


# -- rights


@pytest.mark.parametrize("rights", ["profile rbd-read-only", "allow rx"])
def test_rights_that_are_corrected(bed: Bed, rights: str) -> None:
    """A client keeps the rights that it had when it connected: the next request has a new one."""
    give(bed, "corrected", mon="profile rbd", osd=f"{rights} pool=images")
    store = bed.store(rbd_store_user="corrected")
    image_id = new_id()
    # It can serve images.
    assert store.check_health().startswith("ok")
    with pytest.raises(exceptions.StorageWriteDenied, match="profile rbd"):
        add(store, DATA, image_id)
    # Nothing is left of the attempt, and of the check of the health.
    assert not [item for item in bed.pool.list_objects() if item.key.startswith(OBJECT_PREFIX)]
    give(bed, "corrected", mon="profile rbd", osd="profile rbd pool=images")
    uri = add(store, DATA, image_id)
    give(bed, "corrected", mon="profile rbd", osd="profile rbd-read-only pool=images")
    store._cluster.borrow().retire()
    with pytest.raises(exceptions.Forbidden):
        delete(store, uri)
    give(bed, "corrected", mon="profile rbd", osd="profile rbd pool=images")
    assert read(store, uri) == DATA
    delete(store, uri)


@pytest.mark.parametrize("operation", ["add", "get", "get_size", "delete"])
def test_client_that_was_shut_out(bed: Bed, operation: str) -> None:
    """The first request of a process that the cluster has blocklisted works: it connects anew."""
    store = bed.store()
    uri = add(store, DATA)
    with store.get_connection() as connection:
        address = connection.get_addrs()
    bed.ceph.command("osd blocklist", blocklistop="add", addr=address)
    bed.cluster.wait_for_latest_osdmap()
    # The OSDs take note of it with the next map.
    until(lambda: _is_shut_out(connection, bed), "the OSD refuses the client")
    calls: dict[str, Callable[[], Any]] = {
        "add": lambda: add(store, DATA),
        "get": lambda: read(store, uri) == DATA,
        "get_size": lambda: store.get_size(locate(store, uri)),
        "delete": lambda: delete(store, uri) is None,
    }
    assert calls[operation]()


def _is_shut_out(connection: Any, bed: Bed) -> bool:
    import rados

    with connection.open_ioctx(bed.ceph.pool) as pool:
        try:
            pool.stat("rbd_directory")
        except rados.Error as error:
            return abs(error.errno) == 108
    return False


# -- space


@pytest.fixture
def full(bed: Bed) -> Iterator[Callable[[], None]]:
    """Make the cluster full; it is not any more after the test."""

    def fill() -> None:
        for ratio, value in (("nearfull", 0.00001), ("backfillfull", 0.00002), ("full", 0.00003)):
            bed.ceph.command(f"osd set-{ratio}-ratio", ratio=value)
        until(is_full, "the cluster is full", seconds=60)

    def is_full() -> bool:
        pools = bed.ceph.command("osd dump")["pools"]
        return any("full" in pool["flags_names"].split(",") for pool in pools)

    yield fill
    for ratio, value in (("full", 0.95), ("backfillfull", 0.90), ("nearfull", 0.85)):
        bed.ceph.command(f"osd set-{ratio}-ratio", ratio=value)
    until(lambda: not is_full(), "the cluster has space", seconds=60)
    bed.ceph.heal()


def test_full_cluster(bed: Bed, full: Callable[[], None]) -> None:
    """Images can be read and deleted, and an upload ends at once."""
    store = bed.store()
    uris = [add(store, os.urandom(3 * MIB)) for _number in range(2)]
    full()
    bed.cluster.wait_for_latest_osdmap()
    for use in (lambda: add(store, DATA), store.check_health):
        with pytest.raises(exceptions.StorageFull, match="full"):
            use()
    assert len(read(store, uris[0])) == 3 * MIB
    for uri in uris:
        delete(store, uri)
    assert (bed.names(), bed.trash()) == ([], [])


def test_capacity_that_nobody_counts(bed: Bed) -> None:
    """Ceph without a manager says 0, which is not the same as full."""
    assert bed.cluster.get_cluster_stats()["kb"] == 0
    assert bed.store().capacity() is None


# -- namespaces


@pytest.fixture
def namespace(bed: Bed) -> Iterator[str]:
    """A namespace of the pool, which goes with the test."""
    import rbd

    rbd.RBD().namespace_create(bed.pool, "tenant")
    yield "tenant"
    rbd.RBD().namespace_remove(bed.pool, "tenant")


def test_namespace(bed: Bed, namespace: str) -> None:
    """Its images are of their own, and have locations that say so."""
    give(bed, "tenant", mon="profile rbd", osd=f"profile rbd pool=images namespace={namespace}")
    plain = bed.store()
    store = bed.store(rbd_store_namespace=namespace, rbd_store_user="tenant")
    image_id = new_id()
    uri = add(store, DATA, image_id)
    assert uri == f"rbd://{bed.ceph.fsid}/images/{namespace}/{image_id}/snap"
    assert store.url_prefix == f"rbd://{bed.ceph.fsid}/images/{namespace}/"
    assert locate(store, uri).get_store_uri() == uri
    # A store without a namespace reads by the location, and has an image of that name itself.
    other = add(plain, DATA[::-1], image_id)
    for reader in (store, plain):
        assert read(reader, uri) == DATA
    assert read(plain, other) == DATA[::-1]
    with pytest.raises(exceptions.Duplicate):
        add(store, DATA, image_id)
    assert namespace in store.check_health()
    delete(store, uri)
    assert read(plain, other) == DATA[::-1]
    with pytest.raises(exceptions.NotFound):
        read(store, uri)


def test_namespace_that_is_not_there(bed: Bed) -> None:
    store = bed.store(rbd_store_namespace="nowhere")
    for call in (lambda: add(store, DATA), store.check_health):
        with pytest.raises(exceptions.BadStoreConfiguration, match="no namespace nowhere"):
            call()


@pytest.mark.parametrize("option", ["rbd_store_pool", "rbd_store_namespace", "rbd_store_data_pool"])
def test_pool_with_a_slash(bed: Bed, option: str) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration, match=f"{option} is 'images/tenant'"):
        bed.store(**{option: "images/tenant"})


# -- other clusters


def test_location_of_another_cluster(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """It is looked for in the configured one, as ever, and the log names both, once."""
    store = bed.store()
    image_id = add(store, DATA).split("/")[-2]
    other = "11111111-2222-3333-4444-555555555555"
    for _number in range(3):
        assert read(store, f"rbd://{other}/images/{image_id}/snap") == DATA
    (said,) = [record.getMessage() for record in caplog.records if other in record.getMessage()]
    assert bed.ceph.fsid in said


def test_pool_that_cannot_hold_names(bed: Bed) -> None:
    """An erasure-coded pool is good for data alone."""
    store = bed.store(rbd_store_pool=bed.ceph.data_pool)
    with pytest.raises(exceptions.BadStoreConfiguration, match="rbd_store_data_pool"):
        add(store, DATA)


def test_features_that_do_not_fit_together(bed: Bed) -> None:
    """Object maps want RBD's lock; the mistake is in Ceph's configuration."""
    conf = bed.ceph.client_conf("features.conf", rbd_default_features="9")
    store = bed.store(rbd_store_ceph_conf=str(conf))
    words = "rbd_default_features.*allow_ec_overwrites"
    with pytest.raises(exceptions.BadStoreConfiguration, match=words):
        add(store, DATA)
    assert bed.names() == []


def test_default_data_pool_that_is_not_there(bed: Bed) -> None:
    """Ceph's configuration names it; it is not the image that is missing."""
    conf = bed.ceph.client_conf("data.conf", rbd_default_data_pool="nosuch")
    store = bed.store(rbd_store_ceph_conf=str(conf))
    with pytest.raises(exceptions.BadStoreConfiguration, match="rbd_default_data_pool"):
        add(store, DATA)
    assert bed.names() == []


def test_what_is_missing_during_an_upload_is_no_missing_image(bed: Bed) -> None:
    import rbd

    def lose() -> None:
        raise rbd.ImageNotFound("it is gone", errno.ENOENT)

    writer = bed.store().open_writer(new_id(), len(DATA))
    with pytest.raises(exceptions.BackendException, match="it is gone"):
        writer._run("Completing image %s", lose)
    writer.abort()
    assert (bed.names(), bed.trash()) == ([], [])
