# SPDX-License-Identifier: Apache-2.0
"""A backend that was out of reach when its store was configured is used once it is back."""

from __future__ import annotations

import errno
import io
import logging
import os
import threading

import pytest

import glance_store
from glance_store import capabilities, exceptions, registry
from glance_store._drivers.filesystem import datadirs, syscalls

FAILURES = [
    exceptions.RemoteServiceUnavailable("no route"),
    exceptions.TimeoutError("no route"),
    exceptions.BackendException("no route"),
    ConnectionRefusedError(111, "no route"),
]
DRIVERS = pytest.mark.parametrize("driver", ["faulty.reach", "faulty.reach.anew"])


@pytest.fixture
def away(outside, monkeypatch):
    """The class of the driver; its backend is away until FAILURE is None."""
    import faulty_drivers

    driver = faulty_drivers.OutOfReach
    monkeypatch.setattr(driver, "FAILURE", FAILURES[0])
    monkeypatch.setattr(driver, "ATTEMPTS", [])
    return driver


@DRIVERS
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_multi_store_mode(away, driver, failure, create_multi, conf, caplog):
    caplog.set_level(logging.INFO)
    away.FAILURE = failure
    create_multi(
        {"far": driver, "near": "file"}, options={("glance_store", "default_backend"): "far"}
    )
    # The service starts, and knows the store.
    glance_store.verify_store()
    assert registry.failures() == {}
    assert "faulty" in glance_store.get_known_schemes_for_multi_store()
    assert "Store far cannot reach its backend" in caplog.text
    assert glance_store.add(conf, "image", io.BytesIO(b"abc"), 3, "near")[1] == 3

    def add():
        return glance_store.add(conf, "image", io.BytesIO(b"abc"), 3, "far")

    def size():
        return glance_store.get_size_from_uri_and_backend("faulty:x", "far")

    for operation in (add, size):
        with pytest.raises(exceptions.BackendUnavailable, match=r"'far'.*no route"):
            operation()
    away.FAILURE = None
    assert (add()[0], size()) == ("faulty:x", 7)
    # A reusable store is not configured any more.
    attempts = len(away.ATTEMPTS)
    add()
    assert len(away.ATTEMPTS) - attempts == (driver == "faulty.reach.anew")


def test_secrets_in_the_error_of_a_driver_are_not_told(away, create_multi, conf, caplog):
    address = "https://user:secret@far.example.org/?token=hidden"
    away.FAILURE = ConnectionRefusedError(111, f"cannot reach {address}")
    create_multi({"far": "faulty.reach", "near": "file"})
    with pytest.raises(exceptions.BackendUnavailable, match=r"far\.example\.org") as caught:
        glance_store.add(conf, "image", io.BytesIO(b"abc"), 3, "far")
    told = f"{caplog.text} {caught.value}"
    assert "far.example.org" in caplog.text
    assert "secret" not in told
    assert "hidden" not in told


@DRIVERS
def test_single_store_mode(away, driver, create_single, conf):
    assert create_single([driver, "file"]) == 2

    def add():
        return glance_store.add_to_backend(conf, "image", io.BytesIO(b"abc"), 3, "faulty")

    def size():
        return glance_store.get_size_from_backend("faulty:x")

    for operation in (add, size):
        with pytest.raises(exceptions.BackendUnavailable, match="no route"):
            operation()
    away.FAILURE = None
    assert (add()[0], size()) == ("faulty:x", 7)


def test_store_can_be_looked_at_while_its_backend_is_away(away, create_multi):
    create_multi({"far": "faulty.reach"})
    assert glance_store.get_store_from_store_identifier("far").name == "far"
    assert glance_store.get_store_weight("far") == 0


def test_image_is_saved_while_its_backend_is_away(away, create_multi):
    """The image service sets access control lists each time; here there are none."""
    create_multi({"far": "faulty.reach"})
    away.ATTEMPTS.clear()
    assert glance_store.set_acls_for_multi_store("faulty:x", "far", public=True) is None
    assert away.ATTEMPTS == []


@DRIVERS
def test_image_is_saved_while_its_backend_is_away_in_single_store_mode(away, driver, create_single):
    create_single([driver])
    away.ATTEMPTS.clear()
    assert glance_store.set_acls("faulty:x", public=True) is None
    assert away.ATTEMPTS == []


def test_access_control_lists_wait_for_the_backend(away, create_multi, monkeypatch):
    monkeypatch.setattr(away, "set_acls", lambda *_args, **_more: None, raising=False)
    create_multi({"far": "faulty.reach"})
    with pytest.raises(exceptions.BackendUnavailable, match="no route"):
        glance_store.set_acls_for_multi_store("faulty:x", "far", public=True)
    away.FAILURE = None
    glance_store.set_acls_for_multi_store("faulty:x", "far", public=True)


def test_waiting_requests_share_one_attempt(away, create_multi, monkeypatch):
    create_multi({"far": "faulty.reach"})
    started, go_on = threading.Event(), threading.Event()

    def slow(store):
        store.ATTEMPTS.append("again")
        started.set()
        assert go_on.wait(60), "the attempt was not ended"
        raise exceptions.RemoteServiceUnavailable("still away")

    monkeypatch.setattr(away, "configure_add", slow)
    away.ATTEMPTS.clear()
    failed = []

    def use():
        with pytest.raises(exceptions.BackendUnavailable):
            glance_store.get_size_from_uri_and_backend("faulty:x", "far")
        failed.append(1)

    outage = next(iter(registry._STATE.outages._outages.values()))
    lock = _CountingLock(outage.lock)
    outage.lock = lock
    threads = [threading.Thread(target=use) for _number in range(4)]
    for thread in threads:
        thread.start()
    assert started.wait(60), "no request has tried"
    assert lock.all_there.wait(60), "not all requests have come"
    go_on.set()
    for thread in threads:
        thread.join()
    assert (len(failed), away.ATTEMPTS) == (4, ["again"])


class _CountingLock:
    def __init__(self, lock):
        self.lock, self.guard, self.count = lock, threading.Lock(), 0
        self.all_there = threading.Event()

    def __enter__(self):
        with self.guard:
            self.count += 1
            if self.count == 4:
                self.all_there.set()
        self.lock.acquire()

    def __exit__(self, *exception):
        self.lock.release()


def test_place_that_another_store_has_taken_meanwhile(away, create_multi, caplog):
    create_multi({"one": "faulty.reach", "two": "faulty.reach"})
    away.FAILURE = None
    writable = capabilities.BitMasks.WRITE_ACCESS
    assert glance_store.get_store_from_store_identifier("two").is_capable(writable)
    assert not glance_store.get_store_from_store_identifier("one").is_capable(writable)
    assert "already belongs to the store two" in caplog.text


def test_mistake_that_shows_after_the_outage(away, create_multi):
    create_multi({"far": "faulty.reach"})
    with pytest.MonkeyPatch.context() as patch:
        reason = exceptions.MissingCredentialError(required="a key")
        patch.setattr(away, "FAILURE", reason)
        with pytest.raises(exceptions.BackendUnavailable, match="a key"):
            glance_store.get_size_from_uri_and_backend("faulty:x", "far")


def test_forked_child_does_not_wait_for_threads_of_its_parent(away, create_multi):
    create_multi({"far": "faulty.reach"})
    away.FAILURE = None
    next(iter(registry._STATE.outages._outages.values())).lock.acquire()
    registry._after_fork()
    assert glance_store.get_size_from_uri_and_backend("faulty:x", "far") == 7


GONE = [
    exceptions.StorageWriteDenied("nothing is mounted"),
    exceptions.TimeoutError(timeout=5),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.ENOTCONN, "Transport endpoint is not connected"),
]


@pytest.mark.parametrize("failure", GONE, ids=str)
@pytest.mark.parametrize("mode", ["multi", "single"])
def test_file_system_that_is_mounted_late(mode, failure, create_multi, create_single, conf):
    def gone(_directory):
        raise failure

    def add():
        source = io.BytesIO(b"abc")
        if mode == "multi":
            return glance_store.add(conf, "image", source, 3, "files")[0]
        return glance_store.add_to_backend(conf, "image", source, 3, "file")[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datadirs.DataDir, "prepare", gone)
        if mode == "multi":
            assert create_multi({"files": "file"}) == 2
        else:
            assert create_single(["file"]) == 1
        with pytest.raises(exceptions.BackendUnavailable):
            add()
    uri = add()
    read = glance_store.get(uri, "files") if mode == "multi" else glance_store.get_from_backend(uri)
    assert b"".join(read[0]) == b"abc"


@pytest.mark.parametrize("number", sorted(syscalls.LOST))
def test_file_system_that_goes_away(number):
    away = OSError(number, os.strerror(number))
    with pytest.raises(exceptions.BackendUnavailable, match=away.strerror):
        syscalls.raise_reading_error(away, "/images/image")
    with (
        pytest.raises(exceptions.BackendUnavailable, match=away.strerror),
        syscalls.writing("/images/image"),
    ):
        raise away


def test_both_words_for_an_outage():
    error = exceptions.BackendUnavailable("away")
    assert isinstance(error, exceptions.RemoteServiceUnavailable)
    assert isinstance(error, exceptions.TimeoutError)
    assert error.msg == "away"
