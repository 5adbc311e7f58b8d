# SPDX-License-Identifier: Apache-2.0
"""Does the gateway of the tests speak S3 and Swift, and forget what is deleted?"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.fixtures import client_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.ceph import Ceph
    from tests.services.keystone import Keystone
    from tests.services.radosgw import Radosgw

pytestmark = pytest.mark.services

MiB = 1024 * 1024


@pytest.fixture
def s3(radosgw: Radosgw) -> Iterator[Any]:
    """A client of S3."""
    boto3 = client_module("boto3", "s3")
    client = boto3.client(
        "s3",
        endpoint_url=radosgw.url,
        aws_access_key_id=radosgw.access_key,
        aws_secret_access_key=radosgw.secret_key,
        region_name="us-east-1",
    )
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A bucket, which the test leaves empty."""
    s3.create_bucket(Bucket="smoke-s3")
    yield "smoke-s3"
    s3.delete_bucket(Bucket="smoke-s3")


def test_s3_keeps_an_object(s3: Any, bucket: str) -> None:
    content = os.urandom(MiB)
    s3.put_object(Bucket=bucket, Key="object", Body=content)
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == content
    part = s3.get_object(Bucket=bucket, Key="object", Range="bytes=1000-1999")
    assert part["Body"].read() == content[1000:2000]
    s3.delete_object(Bucket=bucket, Key="object")


def test_s3_joins_parts(s3: Any, bucket: str) -> None:
    pieces = [os.urandom(5 * MiB), os.urandom(MiB)]
    target = {"Bucket": bucket, "Key": "parts"}
    upload = {**target, "UploadId": s3.create_multipart_upload(**target)["UploadId"]}
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**upload, PartNumber=number, Body=piece)["ETag"],
        }
        for number, piece in enumerate(pieces, 1)
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(**target)["Body"].read() == b"".join(pieces)
    s3.delete_object(**target)


def test_s3_refuses_a_wrong_secret(radosgw: Radosgw) -> None:
    boto3 = client_module("boto3", "s3")
    client = boto3.client(
        "s3",
        endpoint_url=radosgw.url,
        aws_access_key_id=radosgw.access_key,
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()
    client.close()


def test_deleted_data_goes_within_seconds(
    s3: Any, bucket: str, radosgw: Radosgw, ceph: Ceph
) -> None:
    import rados

    s3.put_object(Bucket=bucket, Key="short-lived", Body=os.urandom(12 * MiB))
    s3.delete_object(Bucket=bucket, Key="short-lived")
    deadline = time.monotonic() + 120
    with (
        rados.Rados(conffile=str(ceph.conf), rados_id="admin") as cluster,
        cluster.open_ioctx("default.rgw.buckets.data") as pool,
    ):
        while left := [item.key for item in pool.list_objects() if "short-lived" in item.key]:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
    while left := radosgw.admin("gc", "list", "--include-all"):
        assert time.monotonic() < deadline, left


def test_swift_keeps_an_object(radosgw: Radosgw) -> None:
    swiftclient = client_module("swiftclient", "swift")
    content = os.urandom(MiB)
    connection = swiftclient.Connection(
        radosgw.swift_auth_url, radosgw.swift_user, radosgw.swift_key, auth_version="1"
    )
    connection.put_container("smoke-swift")
    connection.put_object("smoke-swift", "object", content)
    assert connection.get_object("smoke-swift", "object")[1] == content
    connection.delete_object("smoke-swift", "object")
    connection.delete_container("smoke-swift")
    connection.close()


def test_swift_trusts_keystone(radosgw: Radosgw, keystone: Keystone) -> None:
    token, _about = keystone.token("glance")

    def call(method: str, path: str, body: bytes | None = None, with_token: str = token) -> bytes:
        request = urllib.request.Request(
            radosgw.storage_url("glance") + path,
            body,
            {"X-Auth-Token": with_token},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    call("PUT", "/smoke-keystone")
    call("PUT", "/smoke-keystone/object", b"kept")
    assert call("GET", "/smoke-keystone/object") == b"kept"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        call("GET", "/smoke-keystone/object", with_token="wrong")
    call("DELETE", "/smoke-keystone/object")
    call("DELETE", "/smoke-keystone")


@pytest.mark.parametrize("loss", ["freeze", "kill"])
def test_gateway_is_lost_and_comes_back(radosgw: Radosgw, loss: str) -> None:
    try:
        getattr(radosgw.gateway, loss)()
        with pytest.raises((urllib.error.URLError, TimeoutError)):
            urllib.request.urlopen(radosgw.url, timeout=1)
    finally:
        radosgw.heal()
    with urllib.request.urlopen(radosgw.url, timeout=60) as answer:
        assert answer.status == 200
