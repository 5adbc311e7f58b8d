# SPDX-License-Identifier: Apache-2.0
"""Does the Swift of the tests keep large objects, know its users, and speak S3?"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.fixtures import unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.services.keystone import Keystone
    from tests.services.swift import Swift

pytestmark = pytest.mark.services

# Swift's own client. An object of one segment more than the rate limits of a usual Swift let pass.
CLIENT = """
import hashlib, json, os, sys
from swiftclient import client, service

options = json.load(sys.stdin)
connection = client.Connection(**options["connection"])
content = os.urandom(options["bytes"])
size = options["segment"]
answer = {"sent": hashlib.sha256(content).hexdigest()}

def digest(name):
    headers, body = connection.get_object("smoke", name, resp_chunk_size=65536)
    return headers, hashlib.sha256(b"".join(body)).hexdigest()

for container in ("smoke", "smoke_segments"):
    connection.put_container(container)
connection.put_object("smoke", "plain", content)
manifest = []
for number, start in enumerate(range(0, len(content), size)):
    piece = content[start:start + size]
    name = f"large/{number:05}"
    etag = connection.put_object("smoke_segments", name, piece)
    path = f"/smoke_segments/{name}"
    manifest.append({"path": path, "etag": etag, "size_bytes": len(piece)})
dynamic = {"X-Object-Manifest": "smoke_segments/large/"}
connection.put_object("smoke", "dynamic", "", headers=dynamic)
static = "multipart-manifest=put"
connection.put_object("smoke", "static", json.dumps(manifest), query_string=static)
for name in ("plain", "dynamic", "static"):
    headers, answer[name] = digest(name)
    answer["static_large"] = headers.get("x-static-large-object")
    answer["size"] = headers["content-length"]
connection.delete_object("smoke", "static", query_string="multipart-manifest=delete")
answer["segments_left"] = len(connection.get_container("smoke_segments")[1])
for name in ("plain", "dynamic"):
    connection.delete_object("smoke", name)
for container in ("smoke", "smoke_segments"):
    connection.delete_container(container)
print(json.dumps(answer))
"""
BYTES = 300_001
SEGMENT = 20_000


def smoke(swift: Swift, connection: Mapping[str, Any]) -> None:
    options = {"connection": connection, "bytes": BYTES, "segment": SEGMENT}
    done = subprocess.run(
        [swift.python, "-W", "ignore", "-c", CLIENT],
        input=json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    answer = json.loads(done.stdout)
    assert answer["plain"] == answer["dynamic"] == answer["static"] == answer["sent"]
    assert answer["static_large"] == "True"
    assert answer["size"] == str(BYTES)
    assert answer["segments_left"] == 0


def call(url: str, token: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"X-Auth-Token": token}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("user", ["glance", "tenant-a"])
def test_client_of_a_keystone_user(swift: Swift, user: str) -> None:
    account = swift.keystone.accounts[user]
    connection = {
        "authurl": swift.keystone.auth_url,
        "auth_version": "3",
        "user": account.user,
        "key": account.password,
        "os_options": {
            "project_name": account.project,
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
    }
    smoke(swift, connection)


def test_client_of_a_user_of_the_proxy(swift: Swift) -> None:
    user, key = swift.s3_access_key, swift.s3_secret_key
    smoke(swift, {"authurl": swift.v1_auth_url, "auth_version": "1", "user": user, "key": key})


def test_catalog(keystone: Keystone, swift: Swift) -> None:
    _token, about = keystone.token("tenant-b")
    entry = next(entry for entry in about["catalog"] if entry["type"] == "object-store")
    assert {e["url"] for e in entry["endpoints"]} == {swift.storage_url("tenant-b")}


def test_tenants_are_apart_until_let_in(keystone: Keystone, swift: Swift) -> None:
    token_a, token_b = (keystone.token(name)[0] for name in ("tenant-a", "tenant-b"))
    container = f"{swift.storage_url('tenant-a')}/apart"
    assert call(container, token_a, "PUT")[0] == 201
    assert call(f"{container}/name", token_a, "PUT", b"content")[0] == 201
    assert call(f"{container}/name", token_b)[0] == 403
    project = keystone.accounts["tenant-b"].project_id
    headers = {"X-Auth-Token": token_a, "X-Container-Read": f"{project}:*"}
    request = urllib.request.Request(container, headers=headers, method="POST")
    urllib.request.urlopen(request, timeout=60).close()
    assert call(f"{container}/name", token_b) == (200, b"content")
    assert call(f"{container}/name", token_a, "DELETE")[0] == 204
    assert call(container, token_a, "DELETE")[0] == 204


def test_frozen_object_server(keystone: Keystone, swift: Swift) -> None:
    """It holds an upload up, and nothing else; thawed, it finishes the upload."""
    token, _about = keystone.token("tenant-a")
    container = f"{swift.storage_url('tenant-a')}/frozen"
    assert call(container, token, "PUT")[0] == 201
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        os.kill(swift.pid("object"), signal.SIGSTOP)
        try:
            upload = other.submit(call, f"{container}/name", token, "PUT", b"content")
            assert call(container, token) == (204, b"")
            assert not upload.done()
        finally:
            os.kill(swift.pid("object"), signal.SIGCONT)
        assert upload.result()[0] == 201
    assert call(f"{container}/name", token, "DELETE")[0] == 204
    assert call(container, token, "DELETE")[0] == 204


def test_listing_is_never_late(keystone: Keystone, swift: Swift) -> None:
    """On a busy machine too: tests look into listings for what is left."""
    token, _about = keystone.token("tenant-a")
    container = f"{swift.storage_url('tenant-a')}/busy"
    assert call(container, token, "PUT")[0] == 201
    # The proxy knows the container from now on.
    assert call(f"{container}/before", token, "PUT", b"content")[0] == 201
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        os.kill(swift.pid("container"), signal.SIGSTOP)
        try:
            upload = other.submit(call, f"{container}/name", token, "PUT", b"content")
            concurrent.futures.wait([upload], timeout=3)
            assert not upload.done()
        finally:
            os.kill(swift.pid("container"), signal.SIGCONT)
        assert upload.result()[0] == 201
    assert call(container, token) == (200, b"before\nname\n")
    for name in ("before", "name"):
        assert call(f"{container}/{name}", token, "DELETE")[0] == 204
    assert call(container, token, "DELETE")[0] == 204


def test_s3(swift: Swift) -> None:
    """A multipart upload and a range, signed with version 4."""
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as reason:
        unavailable(str(reason))

    client = boto3.client(
        "s3",
        endpoint_url=swift.url,
        aws_access_key_id=swift.s3_access_key,
        aws_secret_access_key=swift.s3_secret_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    where = {"Bucket": "smoke-s3", "Key": "large"}
    client.create_bucket(Bucket=where["Bucket"])
    upload = client.create_multipart_upload(**where)["UploadId"]
    pieces = [os.urandom(5 * 1024 * 1024), os.urandom(12345)]
    parts = []
    for number, piece in enumerate(pieces, 1):
        part = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    content = b"".join(pieces)
    assert client.get_object(**where)["Body"].read() == content
    begin, end = len(pieces[0]) - 10, len(pieces[0]) + 9
    got = client.get_object(**where, Range=f"bytes={begin}-{end}")["Body"].read()
    assert got == content[begin : end + 1]
    client.delete_object(**where)
    client.delete_bucket(Bucket=where["Bucket"])
