# SPDX-License-Identifier: Apache-2.0
"""Reads one object by ranges, never bytes of two versions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import PreconditionFailed, TransferInterrupted, guarded
from glance_store.i18n import _
from glance_store.transfer.interface import Extent

LOG = logging.getLogger(__name__)


class S3Reader:
    """An object in a bucket; its size and version are asked for by the constructor.

    :param client: sends the requests
    :param bucket: where the object is
    :param key: its name
    :param concurrency: ranges worth having in flight
    :raises NotFound: there is no such object
    :raises Forbidden: the service refuses
    :raises RemoteServiceUnavailable: the service cannot be reached
    """

    def __init__(self, client: Client, bucket: str, key: str, concurrency: int) -> None:
        self._s3 = client.s3
        self._shown = f"{bucket}/{key}"
        self._arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self.concurrency = concurrency
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
        :returns: the bytes, fewer where the answer broke off, none only at the end of the image
        :raises TransferInterrupted: it broke off before the first byte; calling again may help
        :raises RemoteServiceUnavailable: the service cannot be reached, or the image was replaced
        :raises NotFound: the image has been removed
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        body = self._ask(offset, length)
        try:
            return self._receive(body, offset, length)
        finally:
            body.close()

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

    def _receive(self, body: Any, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        missing = length
        while missing:
            try:
                # Mostly all of it at once, without a copy.
                piece = guarded(
                    lambda: body.read(missing),  # noqa: B023
                    _("Reading %(name)s broke off at byte %(offset)d")
                    % {"name": self._shown, "offset": offset + length - missing},
                )
            except exceptions.RemoteServiceUnavailable as exc:
                if not pieces:
                    raise TransferInterrupted(exc.msg) from None
                LOG.debug("%s; %d bytes of it are used", exc, length - missing)
                break
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        if not pieces:
            raise TransferInterrupted(
                _("Reading %(name)s broke off at byte %(offset)d: the answer ended there"),
                name=self._shown,
                offset=offset,
            )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
