# SPDX-License-Identifier: Apache-2.0
"""Stores of S3 objects, looked at through boto3."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

from ..images import MIB
from .base import StoreUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.radosgw import Radosgw

# No part but the last may be smaller.
PART_BYTES = 5 * MIB


def s3_client(radosgw: Radosgw) -> Any:
    """Return a client of the gateway; boto3 has to be installed."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=radosgw.url,
        aws_access_key_id=radosgw.access_key,
        aws_secret_access_key=radosgw.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


class S3Store(StoreUnderTest):
    """A store of objects in a bucket, those of a mebibyte and more in several parts.

    :param radosgw: the server
    :param client: of the server
    :param bucket: which the store has to create itself
    :param threads: how many parts may be under way at once
    """

    driver = "s3"
    # The first part goes when the second one is there as well.
    sent_bytes = 2 * PART_BYTES + MIB + 4711
    announced_bytes = 2 * PART_BYTES + 2 * MIB

    def __init__(self, name: str, radosgw: Radosgw, client: Any, bucket: str, threads: int) -> None:
        options = {
            "s3_store_host": radosgw.url,
            "s3_store_access_key": radosgw.access_key,
            "s3_store_secret_key": radosgw.secret_key,
            "s3_store_bucket": bucket,
            "s3_store_create_bucket_on_put": "true",
            "s3_store_bucket_url_format": "path",
            "s3_store_large_object_size": "1",
            "s3_store_large_object_chunk_size": str(PART_BYTES // MIB),
            "s3_store_thread_pools": str(threads),
        }
        super().__init__(name, options)
        self._client = client
        self._bucket = bucket
        self._threads = threads
        self._host = urllib.parse.urlsplit(radosgw.url).netloc
        self._keys = f"{radosgw.access_key}:{radosgw.secret_key}"

    @property
    def properties(self) -> dict[str, object]:
        return {
            "s3_store_large_object_size": MIB,
            "s3_store_large_object_chunk_size": PART_BYTES,
            "s3_store_thread_pools": self._threads,
        }

    def location(self, image_id: str) -> str:
        return f"s3://{self._host}/{self._bucket}/{image_id}"

    def old_location(self, image_id: str) -> str:
        return f"s3://{self._keys}@{self._host}/{self._bucket}/{image_id}"

    def has(self, image_id: str) -> bool:
        return image_id in self._objects()

    def read(self, image_id: str) -> bytes:
        answer = self._client.get_object(Bucket=self._bucket, Key=image_id)
        content: bytes = answer["Body"].read()
        return content

    def remove(self, image_id: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=image_id)

    def everything(self) -> list[str]:
        return sorted(self._objects() + [f"upload of {key}" for key in self._uploads()])

    def is_writing(self, image_id: str) -> bool:
        return image_id in self._uploads()

    def put_in_the_way(self, image_id: str) -> Callable[[], bool]:
        content = b"not Glance's"
        # The store makes its bucket with its first image.
        self._client.create_bucket(Bucket=self._bucket)
        self._client.put_object(Bucket=self._bucket, Key=image_id, Body=content)

        def untouched() -> bool:
            found = self.read(image_id)
            self.remove(image_id)
            return found == content

        return untouched

    def _objects(self) -> list[str]:
        return self._keys_of("list_objects_v2", "Contents")

    def _uploads(self) -> list[str]:
        return self._keys_of("list_multipart_uploads", "Uploads")

    def _keys_of(self, operation: str, what: str) -> list[str]:
        try:
            pages = self._client.get_paginator(operation).paginate(Bucket=self._bucket)
            return [entry["Key"] for page in pages for entry in page.get(what, [])]
        except self._client.exceptions.NoSuchBucket:
            return []
