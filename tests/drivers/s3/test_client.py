# SPDX-License-Identifier: Apache-2.0
"""What the client does where services, surroundings and releases of the client library differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.loopback import BUCKET, Recorder, close, older_client_library, store_at
from tests.drivers.s3.service import ONCE_MORE, PATIENT
from tests.engine.test_processes import run_in_fork
from tests.services.http_server import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images
    from tests.faults.proxy import FaultProxy

MIB = 1024 * 1024
TOO_MANY = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>TooManyRequests</Code>"
    b"<Message>please come back later</Message></Error>"
)


# -- overload


@pytest.mark.services
@pytest.mark.usefixtures("brisk")
def test_bare_429_is_tried_again(make: Callable[..., Images], proxy: FaultProxy) -> None:
    """Also for a HEAD request, which has no text that would say more."""
    images = make(s3_store_retry_timeout=PATIENT)
    data = image(1000)

    def use() -> None:
        uri = images.add("busy", data)
        check_bytes(images.read(uri), data)
        images.delete(uri)

    # Looks for the bucket, which is done once.
    use()
    for number in proxy.each_request(use):
        proxy.fail_request(number, 429, times=2)
        use()
        assert len(proxy.requests) >= number + 2


@pytest.mark.services
def test_429_is_tried_as_long_as_configured(make: Callable[..., Images], proxy: FaultProxy) -> None:
    uri = make().add("busy", b"data")
    for seconds, fewest in ((0, 1), (ONCE_MORE, 2)):
        images = make(s3_store_retry_timeout=seconds)
        proxy.clear()
        proxy.fail_request(1, 429, times=None)
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="answered 429"):
            images.size(uri)
        assert len(proxy.requests) >= fewest
        assert seconds or len(proxy.requests) == 1


def test_code_too_many_requests() -> None:
    """It is tried again, and the error has the service's own words."""

    def answer(request: Request, _body: bytes) -> Answer:
        if request.method == "HEAD":
            return Answer(200, b"", {"Content-Length": "4", "ETag": '"1"'})
        return Answer(429, TOO_MANY)

    with Recorder(answer) as server:
        images = store_at(server.url)
        with pytest.raises(exceptions.RemoteServiceUnavailable) as caught:
            images.read(f"s3://{server.url.partition('//')[2]}/{BUCKET}/busy")
        close(images)
    assert "429 TooManyRequests: please come back later" in str(caught.value)
    methods = [request.method for request in server.requests]
    assert methods[:3] == ["HEAD", "GET", "GET"]
    assert set(methods[3:]) <= {"GET"}


# -- other releases of the client library, and processes


@pytest.mark.services
def test_older_library_transfers_without_checksums(
    make: Callable[..., Images],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with older_client_library(monkeypatch):
        images = make(
            s3_store_enable_data_integrity_protection=True,
            s3_store_request_checksum_calculation="when_supported",
            s3_store_response_checksum_validation="when_supported",
        )
        for size in (1000, 6 * MIB):
            data = image(size)
            uri = images.add("older", data)
            check_bytes(images.read(uri), data)
            images.delete(uri)
    assert caplog.text.count("does not support the checksums") == 1


@pytest.mark.services
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_has_connections_of_its_own(make: Callable[..., Images], proxy: FaultProxy) -> None:
    """While its parent goes on with those that both of them have."""
    images = make()
    data = image(6 * MIB)
    uri = images.add("forked", data)
    before = proxy.accepted

    def child() -> None:
        check_bytes(images.read(uri), data)
        images.delete(images.add("forked-too", data))

    assert run_in_fork(child) == 0
    assert proxy.accepted > before
    check_bytes(images.read(uri), data)
