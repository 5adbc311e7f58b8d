# SPDX-License-Identifier: Apache-2.0
"""Attachments: several readers, one reader after the other, and always given back."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.cinder import attachment as attachment_module
from glance_store._drivers.cinder.device import RBDDevice
from glance_store.testing import image
from tests.drivers.cinder.stores import Listing, Store, location, make_store
from tests.faults.http import How
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services

SIZE = 10 * Store.READ_CHUNKSIZE + 7


@pytest.fixture
def proxy(cinder: Cinder) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", cinder.port, http=True) as found:
        yield found


def proxied(cinder: Cinder, proxy: FaultProxy, kind: str = "multi", **options: object) -> Any:
    return make_store(
        {
            **cinder.store_options(kind),
            "cinder_endpoint_template": f"http://{proxy.address}/v3/%(project_id)s",
            "cinder_http_retries": 1,
            **options,
        }
    )


def add(store: Any, data: bytes) -> str:
    uri: str = store.add(str(uuid.uuid4()), io.BytesIO(data), len(data), "sha256")[0]
    return uri


def read(store: Any, uri: str) -> bytes:
    return b"".join(store.get(location(store, uri))[0])


def given_back(proxy: FaultProxy) -> int:
    return sum(
        request.method == "DELETE" and "/attachments/" in request.target
        for request in proxy.requests
    )


def test_r196_detached_once(cinder: Cinder, listing: Listing, proxy: FaultProxy) -> None:
    """At the end, on close, and when the iterator is thrown away: one request each time."""
    store = proxied(cinder, proxy)
    uri = add(store, image(SIZE))

    def to_the_end() -> None:
        chunks, _size = store.get(location(store, uri))
        while next(chunks, None) is not None:
            pass
        # r184: with the last chunk, not when somebody gets around to closing.
        assert listing.attachments() == []
        chunks.close()

    def half_way() -> None:
        chunks, _size = store.get(location(store, uri))
        next(chunks)
        chunks.close()
        chunks.close()

    def thrown_away(begun: bool) -> None:
        chunks, _size = store.get(location(store, uri))
        if begun:
            next(chunks)
        del chunks
        gc.collect()
        cinder.wait(lambda: listing.attachments() == [], "a detached volume")

    for use in (to_the_end, half_way, lambda: thrown_away(True), lambda: thrown_away(False)):
        proxy.clear()
        use()
        assert listing.attachments() == []
        assert given_back(proxy) == 1
    store.delete(location(store, uri))


def test_r189_read_error(cinder: Cinder, listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the middle of a read reaches the reader; the image never looks complete."""
    store = make_store(cinder.store_options("multi"))
    uri = add(store, image(SIZE))
    real = RBDDevice.read_at

    def broken(device: RBDDevice, offset: int, length: int) -> bytes:
        if offset >= SIZE // 2:
            raise OSError(5, "Input/output error")
        return real(device, offset, length)

    monkeypatch.setattr(RBDDevice, "read_at", broken)
    chunks, _size = store.get(location(store, uri))
    found = bytearray(next(chunks))
    with pytest.raises(exceptions.BackendException, match="Input/output error"):
        found += b"".join(chunks)
    assert 0 < len(found) < SIZE
    assert listing.attachments() == []
    monkeypatch.undo()
    store.delete(location(store, uri))


def test_write_error(cinder: Cinder, listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the device have the classes that callers know, and leave nothing."""
    store = make_store(cinder.store_options("plain"))
    for number, kind in (
        (28, exceptions.StorageFull),
        (13, exceptions.StorageWriteDenied),
        (5, exceptions.BackendException),
    ):

        def broken(*_arguments: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(RBDDevice, "write_at", broken)
        with pytest.raises(kind):
            add(store, image(SIZE))
        monkeypatch.undo()
        monkeypatch.setattr(RBDDevice, "flush", broken)
        with pytest.raises(kind):
            add(store, image(SIZE))
        monkeypatch.undo()
        assert listing.all() == []


READERS = """
import hashlib, json, sys, threading
from tests.drivers.cinder.stores import location, make_store
wanted = json.load(sys.stdin)
store = make_store(wanted["options"])
store.READ_CHUNKSIZE = 256 * 1024
found = []
start = threading.Barrier(4)
def read():
    chunks, size = store.get(location(store, wanted["uri"]))
    digest = hashlib.sha256(next(chunks))
    start.wait(200)
    for chunk in chunks:
        digest.update(chunk)
    found.append(digest.hexdigest())
threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
json.dump(found, sys.stdout)
"""


def test_r169_readers_of_two_processes(cinder: Cinder, listing: Listing) -> None:
    """Eight read one multiattach volume at the same time, four in each of two processes."""
    # Eight at once queue up for Cinder, whose volume each reserves for a moment.
    options = {**cinder.store_options("multi"), "cinder_attachment_retry_attempts": 10}
    store = make_store(options)
    data = image(8 * 1024 * 1024)
    uri = add(store, data)
    wanted = json.dumps({"options": options, "uri": uri}, default=str)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", READERS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=cinder.client_environment(),
        )
        for _number in range(2)
    ]
    answers: list[str] = []
    feeders = [
        threading.Thread(target=lambda one=one: answers.append(one.communicate(wanted)[0]))
        for one in programs
    ]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    expected = hashlib.sha256(data).hexdigest()
    assert [json.loads(answer) for answer in answers] == [[expected] * 4] * 2
    assert listing.attachments() == []
    store.delete(location(store, uri))


def test_r178_second_reader_of_a_single_attachment(cinder: Cinder, listing: Listing) -> None:
    """It waits for the first one; where it may not wait, it is told what would help."""
    patient = make_store({**cinder.store_options("plain"), "cinder_attachment_retry_attempts": 8})
    hasty = make_store({**cinder.store_options("plain"), "cinder_attachment_retry_attempts": 1})
    data = image(SIZE)
    uri = add(patient, data)
    chunks, _size = patient.get(location(patient, uri))
    with pytest.raises(exceptions.BackendException, match="cinder_attachment_retry_attempts"):
        hasty.get(location(hasty, uri))
    assert len(listing.attachments()) == 1
    found: list[bytes] = []
    second = threading.Thread(target=lambda: found.append(read(patient, uri)))
    second.start()
    second.join(0.5)
    assert not found
    assert b"".join(chunks) == data
    second.join()
    assert found == [data]
    assert listing.attachments() == []
    patient.delete(location(patient, uri))


def test_lost_answers_of_an_upload(
    cinder: Cinder, listing: Listing, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cinder does what it is asked, and the answer is lost: nothing is done twice or forgotten."""
    store = proxied(cinder, proxy)
    data = image(SIZE)
    for number in proxy.each_request(lambda: store.delete(location(store, add(store, data)))):
        how = How.RESET if number % 2 else How.ANSWER
        proxy.fail_request(number, how=how, times=1, after=0)
        try:
            uri = add(store, data)
        except exceptions.BackendException:
            proxy.clear()
        else:
            proxy.clear()
            assert read(store, uri) == data
            store.delete(location(store, uri))
        assert listing.all() == [], f"request {number} leaves something"


def test_r180_lost_answers_of_a_download(
    cinder: Cinder,
    listing: Listing,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A reservation that may be another host's is never used: it is removed when nobody comes."""
    monkeypatch.setattr(attachment_module, "_RESERVATION_LASTS", 0.5)
    store = proxied(cinder, proxy)
    data = image(SIZE)
    uri = add(store, data)
    for number in proxy.each_request(lambda: read(store, uri)):
        proxy.fail_request(number, how=How.RESET, times=1, after=0)
        assert read(store, uri) == data
        assert listing.attachments() == []
    assert caplog.text.count("Removing the reservation of volume") == 1
    store.delete(location(store, uri))


def test_reservation_of_another_host(
    cinder: Cinder, listing: Listing, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there before: it is neither used nor removed, whatever becomes of the download."""
    monkeypatch.setattr(attachment_module, "_RESERVATION_LASTS", 0.2)
    store = proxied(cinder, proxy, cinder_attachment_retry_attempts=1)
    uri = add(store, image(SIZE))
    body = {"attachment": {"volume_uuid": uri.rpartition("/")[2], "connector": None}}
    theirs = listing.call("POST", "/attachments", body)["attachment"]["id"]
    for number in proxy.each_request(lambda: refused(store, uri)):
        proxy.fail_request(number, 503, how=How.ANSWER, times=1)
        refused(store, uri)
        assert listing.attachments() == [theirs]
    listing.call("DELETE", f"/attachments/{theirs}")
    store.delete(location(store, uri))


def refused(store: Any, uri: str) -> None:
    with pytest.raises(exceptions.BackendException):
        read(store, uri)


def test_rate_limit(cinder: Cinder, listing: Listing, proxy: FaultProxy) -> None:
    """Each request is sent again, whatever it asks for, and nothing is left."""
    store = proxied(cinder, proxy)
    data = image(SIZE)

    def use() -> None:
        uri = add(store, data)
        assert read(store, uri) == data
        store.delete(location(store, uri))

    for number in proxy.each_request(use):
        proxy.fail_request(number, 429, how=How.ANSWER, times=1)
        use()
        assert listing.all() == []


def test_server_that_refuses_connections(
    cinder: Cinder, listing: Listing, proxy: FaultProxy
) -> None:
    store = proxied(cinder, proxy)
    uri = add(store, image(SIZE))
    proxy.inject(refuse=True, reset_after=0)
    for use in (
        lambda: add(store, b"data"),
        lambda: read(store, uri),
        lambda: store.get_size(location(store, uri)),
        lambda: store.delete(location(store, uri)),
        store.check_health,
    ):
        with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
            use()
        assert isinstance(caught.value, exceptions.BackendException)
    assert not store.is_image_associated_with_store(None, uri.rpartition("/")[2])
    proxy.clear()
    store.delete(location(store, uri))


def test_server_that_is_silent(cinder: Cinder, listing: Listing, proxy: FaultProxy) -> None:
    """A request ends after the time of the option, and is not sent again."""
    patient = proxied(cinder, proxy)
    uri = add(patient, image(SIZE))
    store = proxied(cinder, proxy, cinder_request_timeout=1)
    proxy.clear()
    proxy.inject(black_hole=True)
    with pytest.raises(exceptions.TimeoutError, match="cinder_request_timeout"):
        read(store, uri)
    with pytest.raises(exceptions.TimeoutError):
        add(store, b"data")
    proxy.clear()
    patient.delete(location(patient, uri))


def test_start_while_cinder_is_down(
    cinder: Cinder, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A store is configured all the same: Cinder may be back when it is needed (r173)."""
    proxy.inject(refuse=True)
    store = proxied(cinder, proxy)
    assert "cannot be checked" in caplog.text
    proxy.clear()
    assert store.check_health().startswith("ok")
