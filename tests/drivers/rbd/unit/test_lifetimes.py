# SPDX-License-Identifier: Apache-2.0
"""Nothing of Ceph's libraries is closed while a call uses it: that is the end of the process."""

from __future__ import annotations

import threading
import types
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers import rbd as package
from glance_store._drivers.rbd import cluster as cluster_module
from glance_store._drivers.rbd import connection, watchers
from glance_store._drivers.rbd.cluster import Cluster
from glance_store._drivers.rbd.connection import Connection, Settings
from glance_store._drivers.rbd.image import OpenImage
from glance_store.testing.inputs import together

if TYPE_CHECKING:
    from collections.abc import Callable


class Native:
    """Stands for all objects of the bindings, and notes what is closed.

    :param closed: the names, in order
    """

    def __init__(self, closed: list[str], name: str) -> None:
        self._closed = closed
        self._name = name
        self.connect = self.set_namespace = self.wait_for_latest_osdmap = lambda *_arguments: None
        self.conf_get = self.pool_lookup = self.old_format = lambda *_arguments: 0
        self.id = lambda: "1"

    def open_ioctx2(self, _number: int) -> Native:
        return Native(self._closed, "pool")

    def close(self) -> None:
        self._closed.append(self._name)

    shutdown = close


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is closed, in order."""
    found: list[str] = []
    rados = types.SimpleNamespace(Rados=lambda **_options: Native(found, "cluster"))
    rbd = types.SimpleNamespace(Image=lambda *_arguments, **_options: Native(found, "image"))
    monkeypatch.setitem(vars(package), "rados", rados)
    monkeypatch.setitem(vars(package), "rbd", rbd)
    return found


@pytest.fixture
def lease(closed: list[str]) -> connection.Lease:
    """The use of a pool."""
    shared = Connection(Settings("", None, -1))
    assert shared.take()
    return connection.Lease(shared, "images", 1)


def ended() -> None:
    """Wait until what ends has ended."""
    connection.wait_for_ends(10)
    assert not connection._ENDING


def test_image_that_is_closed_while_a_call_uses_it(
    lease: connection.Lease, closed: list[str]
) -> None:
    """As that of a late call, or of another thread: its connection lasts as long."""
    image = OpenImage(lease, "image")
    begun, go_on = threading.Event(), threading.Event()

    def use() -> None:
        with image.in_use():
            begun.set()
            assert go_on.wait(10)

    thread = threading.Thread(target=use)
    thread.start()
    assert begun.wait(10)
    image.close()
    image.close()
    lease.close()
    lease.connection.lose()
    with pytest.raises(exceptions.BackendException, match="already closed"), image.in_use():
        pytest.fail("it is closed")
    ended()
    assert closed == []
    go_on.set()
    thread.join()
    ended()
    assert closed == ["image", "pool", "cluster"]


@pytest.mark.parametrize("left", ["nothing", "an image", "an image in use"])
def test_end_of_the_process(lease: connection.Lease, closed: list[str], left: str) -> None:
    """What was left open is closed in order, and what is in use is not touched."""
    image = OpenImage(lease, "image")
    lease.close()
    if left == "nothing":
        image.close()
        lease.connection.end()
    elif left == "an image":
        lease.connection.end()
    else:
        with image.in_use():
            lease.connection.end()
            connection.wait_for_ends(0.1)
            assert closed == []
    ended()
    assert closed == ["image", "pool", "cluster"]


def test_threads_that_go_on_when_the_process_ends(
    closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They connect no more; what the main thread has to do at the end is done."""
    cluster = Cluster(lambda: Settings("", None, -1), lambda *_reason: RuntimeError())
    monkeypatch.setattr(cluster_module, "_EXITING", threading.Event())
    cluster_module._EXITING.set()
    cluster.borrow().give_back()
    (refused,) = together(cluster.borrow)
    assert isinstance(refused, exceptions.BackendUnavailable)
    cluster.end()
    assert closed == ["cluster"]


def test_end_of_a_process_that_starts_no_threads(
    lease: connection.Lease, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.12 does not, when the interpreter ends."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    lease.close()
    lease.connection.end()
    assert closed == ["pool", "cluster"]


@pytest.mark.usefixtures("closed")
def test_a_process_that_can_start_no_thread_does_not_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(exceptions.BackendUnavailable, match="can't start"):
        Connection(Settings("", None, -1))


def test_what_a_notification_returns_is_kept(
    lease: connection.Lease, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library may write to it after the answer has come: as long as it is connected."""
    gone: list[str] = []

    class Completion:
        def __del__(self) -> None:
            gone.append("completion")

    def notify(_key: str, finish: Callable[..., None], *_more: Any) -> Completion:
        finish(None, 0, [], [])
        return Completion()

    monkeypatch.setattr(lease.access, "aio_notify", notify, raising=False)
    assert watchers._answered(lease, "header") == set()
    assert gone == []
    lease.close()
    lease.connection.retire()
    ended()
    assert (closed, gone) == (["pool", "cluster"], ["completion"])


def test_lock_is_that_of_one_watcher() -> None:
    """A client has several while it gives an image its name; one of them may be listed still."""
    entry = ("client.7", "auto 5", "192.0.2.1:0/1")
    native = types.SimpleNamespace(list_lockers=lambda: {"lockers": [entry]})
    image: Any = types.SimpleNamespace(native=native)
    assert watchers._has_lock(image, 7, 5)
    assert not watchers._has_lock(image, 7, 6)
    assert not watchers._has_lock(image, 8, 5)
