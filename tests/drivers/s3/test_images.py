# SPDX-License-Identifier: Apache-2.0
"""Images in S3: how they are stored, old locations, buckets, credentials."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.service import BUCKET, ONCE_MORE, PATIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service
    from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.services

MIB = 1024 * 1024
PART = 5 * MIB


def etag(service: Service, key: str) -> str:
    return str(service.client.head_object(Bucket=BUCKET, Key=key)["ETag"])


# -- one request or parts


@pytest.mark.parametrize("known", [True, False])
def test_small_image_is_one_request(images: Images, service: Service, known: bool) -> None:
    images.add("small", image(PART - 1), None if known else 0)
    assert "-" not in etag(service, "small")


@pytest.mark.parametrize(("size", "parts"), [(PART, 1), (PART + 1, 2), (3 * PART, 3)])
@pytest.mark.parametrize("known", [True, False])
def test_large_image_is_in_parts(
    images: Images, service: Service, size: int, parts: int, known: bool
) -> None:
    data = image(size)
    uri = images.add("large", io.BytesIO(data), size if known else 0)
    assert etag(service, "large").strip('"').endswith(f"-{parts}")
    check_bytes(images.read(uri), data)


def test_r204_zero_puts_all_images_in_parts(make: Callable[..., Images], service: Service) -> None:
    images = make(s3_store_large_object_size=0)
    for size in (1000, 0):
        images.add("forced", image(1000), size)
        assert "-1" in etag(service, "forced")
        service.empty()


def test_r207_image_without_a_byte(make: Callable[..., Images], service: Service) -> None:
    images = make(s3_store_large_object_size=0)
    uri = images.add("empty", b"")
    assert images.read(uri) == b""
    assert images.size(uri) == 0
    assert len(service.listing()) == 1


def test_attributes_that_the_image_service_reads(images: Images) -> None:
    store = images.store
    assert store.s3_store_large_object_size == 5 * MIB
    assert store.s3_store_large_object_chunk_size == 5 * MIB
    assert store.s3_store_thread_pools == 3


def test_r218_both_forms_of_the_call(images: Images) -> None:
    assert len(images.store.add("four", io.BytesIO(b"data"), 4)) == 4
    assert len(images.store.add("five", io.BytesIO(b"data"), 4, "sha256")) == 5


# -- locations


def test_r209_location_has_no_credentials(
    images: Images, service: Service, proxy: FaultProxy
) -> None:
    uri = images.add("plain", b"data")
    assert uri == f"s3://{proxy.address}/{BUCKET}/plain"
    assert images.store.url_prefix == f"s3://{proxy.address}/{BUCKET}"


@pytest.mark.parametrize(
    "old",
    [
        "s3+http://CANARYACCESS:canary/secret@old.example.org:8080/{bucket}/{key}",
        "s3+https://CANARYACCESS:canarysecret@old.example.org/{bucket}/{key}",
        "s3://old.example.org/{bucket}/{key}",
        "s3+http://old.example.org/{bucket}/{key}",
    ],
)
def test_r209_r217_old_locations(
    images: Images, service: Service, old: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are read and deleted with the options; what they say of host and keys is not used."""
    caplog.set_level(logging.DEBUG)
    images.add("old", b"data")
    uri = old.format(bucket=BUCKET, key="old")
    assert images.read(uri) == b"data"
    assert images.size(uri) == 4
    images.delete(uri)
    with pytest.raises(exceptions.NotFound) as caught:
        images.read(uri)
    for text in (caplog.text, str(caught.value)):
        assert "canary" not in text.lower()
        assert service.secret_key not in text
    assert service.listing() == []


# -- buckets


def test_missing_bucket(make: Callable[..., Images]) -> None:
    images = make(s3_store_bucket=f"{BUCKET}-no")
    with pytest.raises(exceptions.BackendException, match="s3_store_create_bucket_on_put"):
        images.add("x", b"data")
    with pytest.raises(exceptions.BadStoreConfiguration, match="does not exist"):
        images.store.check_health()


def test_bucket_is_created(make: Callable[..., Images], service: Service) -> None:
    bucket = f"{BUCKET}-new"
    images = make(s3_store_bucket=bucket, s3_store_create_bucket_on_put=True)
    assert "will be created" in images.store.check_health()
    try:
        images.delete(images.add("x", b"data"))
        assert bucket in images.store.check_health()
    finally:
        service.client.delete_bucket(Bucket=bucket)


# -- credentials


def test_r205_wrong_secret(make: Callable[..., Images], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    images = make(s3_store_secret_key="canary-secret", s3_store_access_key="canary-access")
    with pytest.raises(exceptions.Forbidden, match="check the credentials") as caught:
        images.add("x", b"data")
    for text in (caplog.text, str(caught.value), repr(images.store)):
        assert "canary" not in text


def test_credentials_of_the_environment(
    make: Callable[..., Images], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", service.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", service.secret_key)
    images = make(s3_store_access_key=None, s3_store_secret_key=None)
    assert images.read(images.add("x", b"data")) == b"data"


def test_credentials_of_a_profile(
    make: Callable[..., Images], service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    path = tmp_path / "credentials"
    path.write_text(
        f"[images]\naws_access_key_id = {service.access_key}\n"
        f"aws_secret_access_key = {service.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "images")
    images = make(s3_store_access_key=None, s3_store_secret_key=None)
    assert images.read(images.add("x", b"data")) == b"data"


def test_unreachable_service(make: Callable[..., Images], proxy: FaultProxy) -> None:
    images = make()
    proxy.inject(refuse=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="onnection"):
        images.add("x", b"data")


@pytest.mark.usefixtures("brisk")
def test_requests_are_repeated_for_a_while(make: Callable[..., Images], proxy: FaultProxy) -> None:
    images = make(s3_store_retry_timeout=PATIENT)
    uri = images.add("x", b"data")
    proxy.clear()
    proxy.fail_request(1, 503, times=3)
    assert images.size(uri) == 4
    assert len(proxy.requests) == 4
    images = make(s3_store_retry_timeout=ONCE_MORE)
    proxy.clear()
    proxy.fail_request(1, 503, times=None)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        images.size(uri)
    assert len(proxy.requests) >= 2


@pytest.mark.parametrize("when", ["when_required", "when_supported"])
def test_r206_checksums_of_the_newer_kind(make: Callable[..., Images], when: str) -> None:
    """They are used where the operator says so, and the image is the same."""
    images = make(
        s3_store_enable_data_integrity_protection=True,
        s3_store_request_checksum_calculation=when,
        s3_store_response_checksum_validation=when,
    )
    for size in (1000, 2 * PART + 3):
        data = image(size)
        uri = images.add("sums", data)
        check_bytes(images.read(uri), data)
        images.delete(uri)


@pytest.mark.parametrize(("size", "number"), [(1000, 3), (PART + 3, 6)], ids=["put", "parts"])
def test_r222_service_that_refuses_the_condition(
    images: Images, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, size: int, number: int
) -> None:
    """Images are stored all the same, and the operator is told once: when it is certain."""
    # The bucket is looked for once.
    images.delete(images.add("unconditional", b"data"))
    data = image(size)
    for warned in (0, 1):
        proxy.clear()
        proxy.fail_request(number, 501, times=1)
        uri = images.add("unconditional", data)
        refused = proxy.requests[number - 1]
        sent = [request for request in proxy.requests if request.target == refused.target]
        assert [request.method for request in sent].count(refused.method) == 2
        check_bytes(images.read(uri), data)
        images.delete(uri)
        assert caplog.text.count("If-None-Match") == warned
    images.delete(images.add("unconditional", data))
    assert caplog.text.count("If-None-Match") == 1


def test_two_uploads_with_and_without_the_condition(
    images: Images, proxy: FaultProxy, service: Service
) -> None:
    """r222: nothing is replaced by a service that does not know the condition either."""
    images.store._client().condition.give_up()
    data = image(PART + 3)
    images.add("taken", data)
    with pytest.raises(exceptions.Duplicate):
        images.add("taken", image(PART + 3, seed=1))
    assert len(service.listing()) == 1
