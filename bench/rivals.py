# SPDX-License-Identifier: Apache-2.0
"""Other programs that move the same bytes, with the methods of ``worker.Store``.

They hash nothing unless told to, and return no digests. Imported by ``worker.py``, from its own
folder.
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Sink(io.RawIOBase):
    """A file that counts what is written to it anywhere, and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        self._position = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        size = len(data)
        self.received += size
        self._position += size
        return size


class HashedSource:
    """A readable that computes what an image service has to know of an image."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._hashes = (hashlib.md5(usedforsecurity=False), hashlib.sha512())

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._wrapped.read(size)
        for each in self._hashes:
            each.update(data)
        return data


class Boto3:
    """``upload_fileobj`` and ``download_fileobj`` of boto3."""

    def __init__(self, options: dict[str, Any]) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        threads = options["threads"]
        # The client of the driver: path style, the checksums that S3 requires and no others.
        config = Config(
            s3={"addressing_style": "path"},
            max_pool_connections=threads,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client = boto3.client(
            "s3",
            endpoint_url=options["host"],
            region_name="us-east-1",
            aws_access_key_id=options["access_key"],
            aws_secret_access_key=options["secret_key"],
            config=config,
        )
        self._bucket = options["bucket"]
        self._hashing = options["hashing"]
        self._transfer = TransferConfig(
            max_concurrency=threads,
            multipart_threshold=options["part"],
            multipart_chunksize=options["part"],
        )

    def add(self, name: str, source: Any, size: int) -> tuple[str, int, str]:
        source = HashedSource(source) if self._hashing else source
        self._client.upload_fileobj(source, self._bucket, name, Config=self._transfer)
        found = self._client.head_object(Bucket=self._bucket, Key=name)
        return name, found["ContentLength"], ""

    def get(self, name: str) -> int:
        sink = Sink()
        self._client.download_fileobj(self._bucket, name, sink, Config=self._transfer)
        return sink.received

    def delete_all(self, names: Sequence[str]) -> None:
        for name in names:
            self._client.delete_object(Bucket=self._bucket, Key=name)


class SwiftService:
    """``upload`` of python-swiftclient's SwiftService."""

    def __init__(self, options: dict[str, Any]) -> None:
        from swiftclient import service

        threads = options["threads"]
        self._service = service.SwiftService(
            {
                "auth_version": "3",
                "os_auth_url": options["auth_url"],
                "os_username": options["user"],
                "os_password": options["password"],
                "os_project_name": options["project"],
                "os_user_domain_id": "default",
                "os_project_domain_id": "default",
                "os_region_name": options["region"],
                "segment_size": str(options["segment"]),
                "segment_threads": threads,
                "object_uu_threads": threads,
            }
        )
        self._object: Any = service.SwiftUploadObject
        self._container = options["container"]

    def _check(self, results: Any) -> None:
        for result in results:
            if not result["success"]:
                raise RuntimeError(f"{result['action']}: {result['error']}")

    def add(self, name: str, source: Any, size: int) -> tuple[str, int, str]:
        # Only what comes from a path is sent by several threads.
        path = getattr(source, "name", source)
        self._check(self._service.upload(self._container, [self._object(path, object_name=name)]))
        return name, size, ""

    def get(self, name: str) -> int:
        (result,) = self._service.download(self._container, [name], {"no_download": True})
        self._check([result])
        return int(result["read_length"])

    def delete_all(self, names: Sequence[str]) -> None:
        self._check(self._service.delete(self._container, list(names)))


KINDS = {"boto3": Boto3, "swiftservice": SwiftService}
