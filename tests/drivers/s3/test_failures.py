# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads on a network that fails: nothing is left, nothing is mixed up."""

from __future__ import annotations

import hashlib
import logging
import types
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body
from glance_store._drivers.s3 import store as module
from glance_store.testing.inputs import Source, SourceError, check_bytes, image
from tests.drivers.s3.service import PATIENT
from tests.faults.conftest import eventually
from tests.faults.http import How
from tests.faults.proxy import FaultProxy
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service

pytestmark = pytest.mark.services

MIB = 1024 * 1024
PART = 5 * MIB
CLEAN = (exceptions.GlanceStoreException, exceptions.BackendException)


@pytest.mark.parametrize(
    ("size", "known"),
    [(2 * PART + 5, True), (PART + 5, False), (1000, True), (0, False)],
    ids=["parts", "parts-unknown", "one-put", "empty"],
)
@pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
def test_answer_of_each_request_is_lost(
    images: Images,
    service: Service,
    proxy: FaultProxy,
    size: int,
    known: bool,
    times: int | None,
) -> None:
    """The service does what it is asked, and the answer never comes: that is made certain."""
    data = image(size)

    def upload() -> str:
        return images.add("lost", data, size if known else 0)

    outcomes = set()
    for number in proxy.each_request(lambda: images.delete(upload())):
        proxy.fail_request(number, how=How.RESET, after=0, times=times)
        try:
            uri = upload()
        except CLEAN:
            outcomes.add("failed")
        else:
            outcomes.add("stored")
            proxy.clear()
            check_bytes(images.read(uri), data)
            images.delete(uri)
        proxy.clear()
        assert service.listing() == [], f"request {number} leaves something"
    assert "stored" in outcomes


@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE])
def test_r211_part_that_fails_aborts_the_upload(
    images: Images, service: Service, proxy: FaultProxy, how: How
) -> None:
    """A connection that breaks is no ClientError of boto3."""
    data = image(2 * PART + 5)
    # HEAD of the object, HEAD of the bucket, beginning, parts.
    proxy.fail_request(4, how=how, times=None)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="Storing part"):
        images.add("broken", data)
    proxy.clear()
    assert service.listing() == []


def test_r212_source_that_fails_aborts_the_upload(images: Images, service: Service) -> None:
    source = Source(image(2 * PART), end=SourceError("gone"))
    with pytest.raises(SourceError):
        images.add("broken", source, 3 * PART)
    assert service.listing() == []


def test_r213_no_more_parts_in_flight_than_threads(
    images: Images, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the service, the source is not read further ahead than the budget."""
    ahead = []
    data = image(12 * PART)
    proxy.inject(bandwidth=20 * MIB)

    def look(position: int) -> None:
        ahead.append(position - proxy.bytes_up)

    images.add("slow", Source(data, before_read=look), len(data))
    threads = images.store.s3_store_thread_pools
    assert max(ahead) <= (threads + 2) * PART


def test_parts_larger_than_configured_are_fewer_in_memory(
    make: Callable[..., Images], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is what the options make it, not what the size of the image does."""
    monkeypatch.setattr(module, "_LIMITS", module._LIMITS._replace(most=6))
    images = make(s3_store_memory=25)
    ahead = []
    data = image(60 * MIB)
    proxy.inject(bandwidth=40 * MIB)

    def look(position: int) -> None:
        ahead.append(position - proxy.bytes_up)

    uri = images.add("large", Source(data, before_read=look), len(data))
    proxy.inject(bandwidth=None)
    check_bytes(images.read(uri), data)
    # Of 10 MiB each, where 25 MiB are configured.
    assert max(ahead) <= 2 * 10 * MIB


def test_r216_failed_part_is_no_logging_error(
    images: Images, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "glance_store")
    proxy.fail_request(4, 503, times=None)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="503"):
        images.add("broken", image(PART + 5))
    assert "Logging error" not in caplog.text


@pytest.mark.usefixtures("brisk")
def test_a_part_that_is_sent_again_is_neither_read_nor_hashed_again(
    make: Callable[..., Images], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make(s3_store_retry_timeout=PATIENT)
    hashed: list[int] = []

    def sha256(data: Any) -> Any:
        hashed.append(len(data))
        return hashlib.sha256(data)

    counting = types.SimpleNamespace(sha256=sha256, md5=hashlib.md5)
    monkeypatch.setattr(body, "hashlib", counting)
    data = image(2 * PART + 5)
    read = []
    proxy.fail_request(4, 503, times=1)
    proxy.fail_request(5, how=How.RESET, after=0, times=1)
    source = Source(data, before_read=read.append)
    uri = images.add("again", source, len(data))
    puts = [request for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 3 + 2
    assert sum(hashed) == len(data)
    assert read == sorted(set(read)) or read[-1] == read[-2] == len(data)
    check_bytes(images.read(uri), data)


@pytest.mark.parametrize("verified", [True, False])
def test_parts_are_hashed_for_the_service_unless_configured(
    make: Callable[..., Images], verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make(s3_store_verify_parts=verified)
    hashed: list[int] = []

    def sha256(data: Any = b"") -> Any:
        hashed.append(len(data))
        return hashlib.sha256(data)

    # Both the store's own place and that of the client library.
    monkeypatch.setattr(body, "hashlib", types.SimpleNamespace(sha256=sha256, md5=None))
    monkeypatch.setattr("botocore.auth.sha256", sha256)
    data = image(2 * PART + 5)
    uri = images.add("parts", data)
    small = images.add("small", b"data")
    assert sum(hashed) >= len(data) + 4 if verified else sum(hashed) < PART
    check_bytes(images.read(uri), data)
    assert images.read(small) == b"data"


@pytest.mark.usefixtures("brisk")
def test_removal_is_tried_again(
    make: Callable[..., Images], service: Service, proxy: FaultProxy
) -> None:
    """The abort of an upload fails as well, at first."""
    images = make(s3_store_retry_timeout=PATIENT)
    images.add("other", b"data")
    before = service.listing()
    proxy.clear()
    for number in range(5, 10):
        proxy.fail_request(number, 503, times=1)
    # HEAD, beginning, one part or two; then the source fails, and the rest is the removal.
    source = Source(image(2 * PART), end=SourceError("gone"))
    with pytest.raises(SourceError):
        images.add("broken", source, 3 * PART)
    assert service.listing() == before


def test_what_cannot_be_removed_is_named(
    images: Images, service: Service, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    def cut(position: int) -> None:
        if position == 2 * PART:
            until(service.listing, "the upload has begun")
            proxy.inject(refuse=True)
            proxy.fail_request(len(proxy.requests) + 1, 503, times=None, everything=True)

    source = Source(image(2 * PART), before_read=cut, end=SourceError("gone"))
    # Or what the first request after the cut raises.
    with pytest.raises((SourceError, *CLEAN)):
        images.add("stranded", source, 3 * PART)
    proxy.clear()
    assert "stranded" in caplog.text
    assert "lifecycle rule" in caplog.text or service.listing() == []


def test_object_of_somebody_else_is_never_removed(
    images: Images, service: Service, proxy: FaultProxy, name: dict[str, str]
) -> None:
    """While the image is being read, another process stores one of its id."""

    def overtake(position: int) -> None:
        if position == 2 * PART:
            service.client.put_object(**name, Key="same", Body=b"the other one")

    source = Source(image(2 * PART + 5), before_read=overtake)
    with pytest.raises(exceptions.Duplicate):
        images.add("same", source, 2 * PART + 5)
    answer = service.client.get_object(**name, Key="same")
    assert answer["Body"].read() == b"the other one"
    assert len(service.listing()) == 1


def test_r222_small_object_of_somebody_else_is_not_replaced(
    images: Images, service: Service, name: dict[str, str]
) -> None:
    def overtake(position: int) -> None:
        if position == 1000:
            service.client.put_object(**name, Key="same", Body=b"the other one")

    with pytest.raises(exceptions.Duplicate):
        images.add("same", Source(image(1000), before_read=overtake), 1000)
    assert service.client.get_object(**name, Key="same")["Body"].read() == b"the other one"


# -- downloads


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE])
def test_download_is_resumed(make: Callable[..., Images], proxy: FaultProxy, how: How) -> None:
    """A body that breaks off is asked for from there on."""
    # Whoever is reset loses what has come: two failures in a row.
    images = make(s3_store_retry_timeout=PATIENT)
    data = image(3 * PART)
    uri = images.add("resumed", data)
    proxy.clear()
    proxy.fail_request(2, how=how, after=MIB, times=1)
    proxy.fail_request(3, how=how, after=100, times=1)
    check_bytes(images.read(uri), data)
    assert len(proxy.requests) >= 4


def test_download_that_cannot_be_resumed(images: Images, proxy: FaultProxy) -> None:
    data = image(3 * PART)
    uri = images.add("cut", data)
    proxy.clear()
    proxy.fail_request(2, how=How.TRUNCATE, after=0, times=None, everything=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        images.read(uri)


def test_replaced_object_is_not_mixed(
    make: Callable[..., Images], service: Service, name: dict[str, str]
) -> None:
    """Each range is asked for on the condition that the object is still the same."""
    images = make(s3_store_read_concurrency=1)
    images.store.READ_CHUNKSIZE = MIB
    uri = images.add("replaced", image(4 * MIB))
    chunks = images.get(uri)
    next(chunks)
    service.client.put_object(**name, Key="replaced", Body=image(4 * MIB, seed=1))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="was replaced"):
        b"".join(chunks)


def test_r220_object_that_goes_between_two_requests(
    make: Callable[..., Images], service: Service, name: dict[str, str]
) -> None:
    images = make(s3_store_read_concurrency=1)
    uri = images.add("gone", image(MIB))
    chunks = images.get(uri)
    service.client.delete_object(**name, Key="gone")
    with pytest.raises(exceptions.NotFound):
        next(chunks)


def test_r223_download_that_is_given_up_leaves_no_connection(
    make: Callable[..., Images], proxy: FaultProxy
) -> None:
    # A proxy of its own: the stores of earlier tests keep idle connections while they live.
    with FaultProxy(*proxy.target, http=True) as own:
        images = make(s3_store_read_concurrency=2, s3_store_host=f"http://{own.address}")
        images.store.READ_CHUNKSIZE = MIB
        data = image(8 * MIB)
        uri = images.add("given-up", data)
        for _number in range(10):
            chunks = images.get(uri)
            next(chunks)
            chunks.close()
        check_bytes(images.read(uri), data)
        # One for each thread of the upload, one more for the rest; all of them idle. The proxy
        # learns a little later of those that were closed with data on their way.
        assert eventually(lambda: own.open <= 3 + 2)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, exceptions.Forbidden),
        (404, exceptions.NotFound),
        (409, exceptions.RemoteServiceUnavailable),
        (412, exceptions.RemoteServiceUnavailable),
        (416, exceptions.TruncatedImage),
        (429, exceptions.RemoteServiceUnavailable),
        (500, exceptions.RemoteServiceUnavailable),
        (507, exceptions.StorageFull),
    ],
)
def test_r219_answers_become_exceptions_of_the_library(
    images: Images, proxy: FaultProxy, status: int, expected: type[Exception]
) -> None:
    """The text has what the service said."""
    uri = images.add("refused", b"data")
    proxy.clear()
    proxy.fail_request(2, status, times=None)
    with pytest.raises(expected) as caught:
        images.read(uri)
    if status != 412:
        assert str(status) in str(caught.value)
