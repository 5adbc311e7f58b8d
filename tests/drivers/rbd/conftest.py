# SPDX-License-Identifier: Apache-2.0
"""Stores on a real cluster, and the cluster seen past the driver."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store._drivers.rbd import Store
from glance_store.location import Location
from tests.services.fixtures import ceph_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.base import Lab
    from tests.services.ceph import Ceph

MIB = 1024 * 1024
# Seconds in which the cluster notices for sure that a client has died.
WATCHED = 45.0
# Layering alone, which a cluster has whose configuration names no features.
LAYERING = 1
FEATURES = 61


class Bed:
    """A cluster, and stores on it.

    :ivar pool: access to the pool of images, past the driver
    """

    def __init__(self, ceph: Ceph, cluster: Any, pool: Any) -> None:
        self.ceph = ceph
        self.cluster = cluster
        self.pool = pool

    def store(self, name: str | None = "ceph", **options: Any) -> Store:
        """Return a new store."""
        conf = cfg.ConfigOpts()
        store = Store(conf, name)
        settings = {
            "rbd_store_ceph_conf": str(self.ceph.conf),
            "rbd_store_user": self.ceph.user,
            "rbd_store_pool": self.ceph.pool,
            "rbd_store_chunk_size": 1,
            **options,
        }
        for option, value in settings.items():
            conf.set_override(option, value, group=name or "glance_store")
        store.configure(re_raise_bsc=True)
        return store

    def image(self, name: str, snapshot: str | None = None, read_only: bool = True) -> Any:
        """Open an image past the driver."""
        import rbd

        return rbd.Image(self.pool, name, snapshot=snapshot, read_only=read_only)

    def create(self, name: str, data: bytes = b"", **options: Any) -> None:
        """Create an image past the driver, without a snapshot."""
        import rbd

        settings = {"old_format": False, "features": FEATURES, **options}
        rbd.RBD().create(self.pool, name, len(data), 20, **settings)
        if data:
            with self.image(name, read_only=False) as image:
                image.write(data, 0)

    def names(self) -> list[str]:
        """Return the images of the pool."""
        import rbd

        return sorted(rbd.RBD().list(self.pool))

    def trash(self) -> list[str]:
        """Return the names of what is in the trash of the pool."""
        import rbd

        return sorted(entry["name"] for entry in rbd.RBD().trash_list(self.pool))

    def clean(self) -> None:
        """Remove all images, whatever their state."""
        import rbd

        for entry in list(rbd.RBD().trash_list(self.pool)):
            rbd.RBD().trash_restore(self.pool, entry["id"], f"{entry['name']}-{entry['id']}")
        deadline = time.monotonic() + WATCHED
        while names := self.names():
            # Clones first.
            reasons = {name: reason for _round in range(2) for name, reason in self._sweep()}
            assert time.monotonic() < deadline, f"{names} cannot be removed: {reasons}"
            if reasons:
                # A client that was killed counts as alive until the cluster has noticed it.
                time.sleep(0.5)

    def _sweep(self) -> Iterator[tuple[str, str]]:
        """Remove images; yield those in use, and by whom."""
        import rbd

        for name in self.names():
            try:
                self._remove(name)
            except (rbd.ImageBusy, rbd.ImageHasSnapshots) as busy:
                with contextlib.suppress(rbd.ImageNotFound), self.image(name) as image:
                    watchers, lockers = list(image.watchers_list()), image.list_lockers()
                    yield name, f"{busy}, watchers {watchers}, lockers {lockers}"

    def answers(self, key: str) -> list[int] | None:
        """Ask the clients that watch an object.

        :returns: those that answer; None when the OSD waits for others in vain
        """
        done = threading.Event()
        found: list[tuple[int, list[Any] | None]] = []

        def finish(_call: object, code: int, answers: list[Any] | None, _late: object) -> None:
            found.append((code, answers))
            done.set()

        self.pool.aio_notify(key, finish, "", 1000)
        assert done.wait(30)
        code, answers = found[0]
        return None if code or answers is None else [client for client, *_more in answers]

    def _remove(self, name: str) -> None:
        import rbd

        with (
            # What was killed in the middle of a creation has no more than a name.
            contextlib.suppress(rbd.ImageNotFound),
            self.image(name, read_only=False) as image,
        ):
            for snapshot in list(image.list_snaps()):
                with contextlib.suppress(rbd.InvalidArgument):
                    image.unprotect_snap(snapshot["name"])
                image.remove_snap(snapshot["name"])
        rbd.RBD().remove(self.pool, name)

    def command(self, *arguments: object) -> str:
        """Run Ceph's own client as the driver's user."""
        command = ["rbd", "--conf", self.ceph.conf, "--id", self.ceph.user, *arguments]
        done = subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def served(self) -> int:
        """Return how many bytes the OSD has sent to readers since it was started."""
        return int(self._counters()["op_r_out_bytes"])

    def _counters(self) -> Any:
        assert self.ceph.folder is not None
        socket = self.ceph.folder / "osd.0.asok"
        command = ["ceph", "--conf", self.ceph.conf, "--admin-daemon", socket, "perf", "dump"]
        done = subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, text=True, timeout=60
        )
        return json.loads(done.stdout)["osd"]


@pytest.fixture(scope="session")
def ceph(own_lab: Lab) -> Ceph:
    """A cluster of this process alone: these tests freeze it, kill it and change its options."""
    return ceph_of(own_lab)


@pytest.fixture
def bed(ceph: Ceph) -> Iterator[Bed]:
    """The cluster, without any image before the test and after it."""
    import rados

    with (
        rados.Rados(conffile=str(ceph.conf), rados_id=ceph.user) as cluster,
        cluster.open_ioctx(ceph.pool) as pool,
    ):
        found = Bed(ceph, cluster, pool)
        found.clean()
        yield found
        found.clean()


@pytest.fixture
def short_watch(ceph: Ceph) -> Iterator[None]:
    """Let the cluster notice sooner that a client is dead: after 8 seconds instead of 30."""
    option = {"who": "osd", "name": "osd_client_watch_timeout"}
    ceph.command("config set", value="8", **option)
    yield
    ceph.command("config rm", **option)


def new_id() -> str:
    """Return the id of an image that was never there."""
    return str(uuid.uuid4())


def add(store: Store, data: bytes, image_id: str | None = None, size: int | None = None) -> str:
    """Store an image and return its location."""
    announced = len(data) if size is None else size
    url: str = store.add(image_id or new_id(), io.BytesIO(data), announced, "sha256")[0]
    return url


def locate(store: Store, uri: str) -> Location:
    """Return the parsed form of a location."""
    return Location(
        "rbd", store.get_store_location_class(), store.conf, uri=uri, backend=store.backend_group
    )


def read(store: Store, uri: str, **bounds: int) -> bytes:
    """Return an image."""
    chunks, _size = store.get(locate(store, uri), **bounds)
    return b"".join(chunks)


def size_of(store: Store, uri: str) -> int:
    """Return the bytes of an image."""
    return store.get_size(locate(store, uri))


def delete(store: Store, uri: str) -> None:
    """Remove an image."""
    store.delete(locate(store, uri))


class Program:
    """A Python process that uses a store and says how far it is.

    :param bed: the cluster
    :param code: what it does; `store`, `add` and the functions of this module are there
    :param arguments: its arguments
    """

    def __init__(self, bed: Bed, code: str, *arguments: str) -> None:
        preamble = (
            "import os, sys, time, io, threading\n"
            f"sys.path.append({str(bed.ceph.bindings())!r})\n"
            f"sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
            "import rados\n"
            "from tests.drivers.rbd.conftest import *\n"
            "class Conf: pass\n"
            "ceph = Conf()\n"
            f"ceph.conf, ceph.user, ceph.pool = {str(bed.ceph.conf)!r}, 'glance', 'images'\n"
            "bed = Bed(ceph, None, None)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", preamble + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it go on after it has said something; it waits for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 60) -> tuple[str, str]:
        """Wait for its end and return what it said."""
        return self.process.communicate(timeout=timeout)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def program(bed: Bed) -> Iterator[Callable[..., Program]]:
    """Start programs, which end with the test."""
    started: list[Program] = []

    def start(code: str, *arguments: str) -> Program:
        started.append(Program(bed, code, *arguments))
        return started[-1]

    yield start
    for one in started:
        # Also of one that has ended by itself: its pipes are open.
        if one.process.stdout is not None and not one.process.stdout.closed:
            one.kill()
