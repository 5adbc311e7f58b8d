# SPDX-License-Identifier: Apache-2.0
"""A server that speaks S3, seen from outside the driver: what it holds, unfinished uploads too."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from glance_store._drivers._objects import claim
from glance_store._drivers.s3 import upload
from glance_store.transfer import retry
from tests.services.fixtures import client_module
from tests.services.swift import Swift

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from tests.services.radosgw import Radosgw

# Of this process alone: another run of the tests may use the same server.
BUCKET = f"tests-{os.getpid()}"
# Seconds of patience: less than the first pause takes, so that each request gets one more try.
ONCE_MORE = 0.1
# More than any test takes, for faults that end.
PATIENT = 300


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
            "s3_store_retry_timeout": ONCE_MORE,
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
    """Let nobody wait for an object that comes late: it takes long, and tests nothing."""
    client_module("boto3", "s3")
    monkeypatch.setattr(claim, "_RECHECKS", (0.01, 0.01, 0.01))
    # Nor may a service that joins parts take a moment longer: tries could not be counted.
    monkeypatch.setattr(upload, "_PER_PART", 0)


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait between two tries; a request has more than one with any patience then."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE", 0.01)
