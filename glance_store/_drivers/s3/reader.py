# SPDX-License-Identifier: Apache-2.0
"""Reads one object by ranges, never bytes of two versions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import PreconditionFailed, TransferInterrupted, guarded
from glance_store.i18n import _
from glance_store.transfer.interface import Extent


class S3Reader:
    """An object in a bucket; its size and version are asked for by the constructor.

    :param client: sends the requests
    :param bucket: where the object is
    :param key: its name
    :param concurrency: ranges worth having in flight
    :param range_size: bytes of such a range
    :raises NotFound: there is no such object
    :raises Forbidden: the service refuses
    :raises RemoteServiceUnavailable: the service cannot be reached
    """

    def __init__(
        self, client: Client, bucket: str, key: str, concurrency: int, range_size: int
    ) -> None:
        self._s3 = client.s3
        self._shown = f"{bucket}/{key}"
        self._arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self.concurrency = concurrency
        self.range_size = range_size
        about = guarded(
            lambda: self._s3.head_object(**self._arguments),
            _("Looking for %s") % self._shown,
            self._shown,
        )
        self.size: int = about["ContentLength"]
        if about.get("ETag"):
            self._arguments["IfMatch"] = about["ETag"]
        if about.get("VersionId", "null") != "null":
            self._arguments["VersionId"] = about["VersionId"]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say that all is data; S3 knows no holes."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Do nothing: each range has an answer of its own."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset.

        :param offset: first byte
        :param length: how many
        :returns: the bytes, none only at the end of the image
        :raises TransferInterrupted: the answer broke off; calling again may help
        :raises RemoteServiceUnavailable: the service cannot be reached, or the image was replaced
        :raises NotFound: the image has been removed
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        with contextlib.closing(self.open_stream(offset, length)) as stream:
            return stream.read(length)

    def open_stream(self, offset: int, length: int) -> S3Stream:
        """Ask for bytes at an offset.

        :param offset: first byte
        :param length: how many; the image has them
        :raises RemoteServiceUnavailable: the service cannot be reached, or the image was replaced
        :raises NotFound: the image has been removed
        """
        return S3Stream(self._ask(offset, length), self._shown, offset, length)

    def _ask(self, offset: int, length: int) -> Any:
        """Send the request for a range; return the body of the answer."""
        try:
            answer = guarded(
                lambda: self._s3.get_object(
                    **self._arguments, Range=f"bytes={offset}-{offset + length - 1}"
                ),
                _("Reading %(name)s at byte %(offset)d") % {"name": self._shown, "offset": offset},
                self._shown,
            )
        except PreconditionFailed:
            replaced = True
        else:
            replaced = False
        if replaced:
            raise exceptions.RemoteServiceUnavailable(
                _(
                    "The object %(name)s was replaced while it was being read, at byte "
                    "%(offset)d: what was read so far is of no use, start the download again"
                ),
                name=self._shown,
                offset=offset,
            )
        body = answer["Body"]
        if answer["ResponseMetadata"]["HTTPStatusCode"] != 206 and length != self.size:
            body.close()
            raise exceptions.RemoteServiceUnavailable(
                _("The service sends %(name)s as a whole only, not the range that was asked for"),
                name=self._shown,
            )
        return body


class S3Stream:
    """The answer for a range of an object.

    :param body: of the answer
    :param shown: name of the object, for errors
    :param offset: first byte
    :param length: bytes of the range
    """

    def __init__(self, body: Any, shown: str, offset: int, length: int) -> None:
        self._body = body
        self._shown = shown
        self._offset = offset
        self._missing = length

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, none at the end of the range.

        :param length: how many
        :raises TransferInterrupted: the answer broke off
        """
        wanted = min(length, self._missing)
        if not wanted:
            return b""
        try:
            # Mostly all of it at once, without a copy.
            data: bytes = guarded(lambda: self._body.read(wanted), self._action())
        except exceptions.RemoteServiceUnavailable as exc:
            raise TransferInterrupted(exc.msg) from None
        if not data:
            raise TransferInterrupted(
                _("%(action)s: the answer ended there"), action=self._action()
            )
        self._offset += len(data)
        self._missing -= len(data)
        return data

    def _action(self) -> str:
        return str(
            _("Reading %(name)s broke off at byte %(offset)d")
            % {"name": self._shown, "offset": self._offset}
        )

    def close(self) -> None:
        """Let go of what was not read."""
        self._body.close()
