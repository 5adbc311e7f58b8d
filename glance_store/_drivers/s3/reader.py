# SPDX-License-Identifier: Apache-2.0
"""Reads one object by ranges, never bytes of two versions; or all of it, to verify its checksum."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import PreconditionFailed, TransferInterrupted, guarded
from glance_store.i18n import _
from glance_store.transfer.interface import Extent

LOG = logging.getLogger(__name__)

# The checksums that the client library can compute, with awscrt and without it.
_COMPUTED = ("ChecksumCRC32", "ChecksumSHA1", "ChecksumSHA256")
_COMPUTED_WITH_CRT = ("ChecksumCRC32C", "ChecksumCRC64NVME")


class S3Reader:
    """An object in a bucket; its size and version are asked for by the constructor.

    Where checksums are to be verified and the object has one of all its bytes, all of it is asked
    for at once when it is read from the first byte to the last one: services send the checksum with
    nothing less. `range_size` is that of the object then, so that the engine cuts nothing.

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
        verifying = client.settings.verifies_downloads
        mode = {"ChecksumMode": "ENABLED"} if verifying else {}
        about = guarded(
            lambda: self._s3.head_object(**self._arguments, **mode),
            _("Looking for %s") % self._shown,
            self._shown,
        )
        self.size: int = about["ContentLength"]
        self._verified = verifying and _has_checksum(about)
        self._was_whole = False  # whether the answer with the checksum has been asked for
        if self._verified:
            self.range_size = max(range_size, self.size)
        elif verifying:
            LOG.debug("%s has no checksum of the whole object: it cannot be verified", self._shown)
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
        whole = self._verified and length == self.size
        if whole:
            self._was_whole = True
        elif self._was_whole:
            self._was_whole = False
            LOG.info(
                "Reading %s goes on by ranges, of which the service has no checksum: the image is "
                "not verified",
                self._shown,
            )
        return S3Stream(self._ask(offset, length, whole), self._shown, offset, length, whole)

    def _ask(self, offset: int, length: int, whole: bool) -> Any:
        """Send the request for a range or for the whole; return the body of the answer."""
        wanted = {} if whole else {"Range": f"bytes={offset}-{offset + length - 1}"}
        try:
            answer = guarded(
                lambda: self._s3.get_object(**self._arguments, **wanted),
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
    :param verified: whether the body knows a checksum, which is compared at its end
    """

    def __init__(
        self, body: Any, shown: str, offset: int, length: int, verified: bool = False
    ) -> None:
        self._body = body
        self._shown = shown
        self._offset = offset
        self._missing = length
        self._verified = verified

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, none at the end of the range.

        :param length: how many
        :raises TransferInterrupted: the answer broke off
        :raises BackendException: the bytes are not those that the checksum is of; before the last
            ones are returned
        """
        wanted = min(length, self._missing)
        if not wanted:
            return b""
        # Mostly all of it at once, without a copy.
        data = self._receive(wanted)
        if not data:
            raise TransferInterrupted(
                _("%(action)s: the answer ended there"), action=self._action()
            )
        if self._verified and len(data) == self._missing:
            # The client library compares the checksum when it is asked for what follows the end.
            self._receive(1)
        self._offset += len(data)
        self._missing -= len(data)
        return data

    def _receive(self, wanted: int) -> bytes:
        """Return the next bytes of the body, with errors of this library."""
        import botocore.exceptions

        def receive() -> bytes:
            try:
                return bytes(self._body.read(wanted))
            except botocore.exceptions.FlexibleChecksumError as exc:
                mismatch = str(exc)
            raise exceptions.BackendException(
                _(
                    "Reading %(name)s: the bytes do not have the checksum that the service keeps, "
                    "they were damaged on the way or where they are stored (%(mismatch)s)"
                )
                % {"name": self._shown, "mismatch": mismatch}
            )

        try:
            return guarded(receive, self._action())
        except exceptions.RemoteServiceUnavailable as exc:
            raise TransferInterrupted(exc.msg) from None

    def _action(self) -> str:
        return str(
            _("Reading %(name)s broke off at byte %(offset)d")
            % {"name": self._shown, "offset": self._offset}
        )

    def close(self) -> None:
        """Let go of what was not read."""
        self._body.close()


def _has_checksum(about: dict[str, Any]) -> bool:
    """Tell whether an object has a checksum of all its bytes that the client library can compute.

    :param about: the answer to HEAD
    """
    from botocore.compat import HAS_CRT

    if about.get("ChecksumType") == "COMPOSITE":
        return False
    names = _COMPUTED + (_COMPUTED_WITH_CRT if HAS_CRT else ())
    # "...-3": computed from those of three parts.
    return any("-" not in about.get(name, "-") for name in names)
