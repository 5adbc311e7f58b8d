# SPDX-License-Identifier: Apache-2.0
"""A server that speaks S3, seen from outside the driver: what it holds, unfinished uploads too."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from glance_store._drivers.s3 import upload
from tests.services.fixtures import client_module
from tests.services.swift import Swift

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from tests.services.radosgw import Radosgw

# Of this process alone: another run of the tests may use the same server.
BUCKET = f"tests-{os.getpid()}"


class Service:
    """A server and its bucket.

    :param server: a running RADOS gateway or Swift
    """

    def __init__(self, server: Radosgw | Swift) -> None:
        boto3 = client_module("boto3", "s3")
        self.server = server
        self.url = server.url
        if isinstance(server, Swift):
            self.access_key, self.secret_key = server.s3_access_key, server.s3_secret_key
        else:
            self.access_key, self.secret_key = server.access_key, server.secret_key
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def options(self, address: str | None = None) -> dict[str, Any]:
        """Return the options of a store with small parts, which tries everything twice.

        :param address: host and port where the store reaches the server; None for its own
        """
        return {
            "s3_store_host": self.url if address is None else f"http://{address}",
            "s3_store_access_key": self.access_key,
            "s3_store_secret_key": self.secret_key,
            "s3_store_bucket": BUCKET,
            "s3_store_bucket_url_format": "path",
            "s3_store_large_object_size": 5,
            "s3_store_large_object_chunk_size": 5,
            "s3_store_thread_pools": 3,
            "s3_store_max_attempts": 2,
            "s3_store_connect_timeout": 5,
            "s3_store_read_timeout": 15,
        }

    def listing(self) -> list[str]:
        """Return the objects with their ETags, and the unfinished uploads."""
        objects = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        uploads = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [
            *(f"object {item['Key']} {item['ETag']}" for item in objects),
            *(f"upload {item['Key']} {item['UploadId']}" for item in uploads),
        ]

    def empty(self) -> None:
        """Remove everything from the bucket."""
        name = {"Bucket": BUCKET}
        for item in self.client.list_multipart_uploads(**name).get("Uploads", []):
            with contextlib.suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(
                    **name, Key=item["Key"], UploadId=item["UploadId"]
                )
        for item in self.client.list_objects_v2(**name).get("Contents", []):
            self.client.delete_object(**name, Key=item["Key"])


@contextlib.contextmanager
def serving(server: Radosgw | Swift) -> Iterator[Service]:
    """Give a server with an empty bucket, which is removed afterwards."""
    service = Service(server)
    service.client.create_bucket(Bucket=BUCKET)
    try:
        yield service
        service.empty()
        service.client.delete_bucket(Bucket=BUCKET)
    finally:
        service.client.close()


def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait between two tries: it takes long, and tests nothing."""
    client_module("boto3", "s3")
    pause = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(pause, lambda self, context: 0)
    monkeypatch.setattr(upload, "_PAUSE", 0.01)
