# SPDX-License-Identifier: Apache-2.0
"""Reads one object by ranges, all of one version; or all at once, to verify its checksum."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers._network import break_off
from glance_store._drivers._objects.errors import ERRORS, NameTaken, NoResult
from glance_store._drivers._objects.ranges import (
    FIRST_BYTE,
    Part,
    RangeReader,
    bare_etag,
    content_coding,
    part_of,
    size_of,
)
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import answer_of, guarded, is_unknown_feature
from glance_store.i18n import _
from glance_store.transfer.memory import Memory
from glance_store.transfer.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger(__name__)

# The checksums that the client library can compute, without and with awscrt.
_COMPUTED = ("ChecksumCRC32", "ChecksumSHA1", "ChecksumSHA256")
_COMPUTED_WITH_CRT = ("ChecksumCRC32C", "ChecksumCRC64NVME")
# Storage classes whose objects may have to be restored before they can be read.
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")


class S3Reader(RangeReader):
    """An object in a bucket; the constructor asks for its size and version.

    To verify a checksum of the whole object, the reader requests all of it at once when it is read
    from start to end: services send that checksum with nothing less. `range_size` is then the size
    of the object, so that the engine does not split it.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: str,
        *,
        concurrency: int,
        range_size: int,
        memory: Memory,
        patience: Patience,
    ) -> None:
        super().__init__(concurrency, range_size, memory)
        self._s3 = client.s3
        self._shown = f"{bucket}/{key}"
        self._name: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._verifying = client.settings.verifies_downloads
        about = patience.call(self._head)
        self.size = about["ContentLength"]
        # HEAD does not tell whether the object has been restored.
        self._archived = about.get("StorageClass") in _ARCHIVES
        self._verified = self._verifying and _has_checksum(about)
        self._was_whole = False  # whether the last request was for the whole object
        if self._verified:
            self.range_size = max(range_size, self.size)
        elif self._verifying:
            LOG.debug("%s has no checksum of the whole object: it cannot be verified", self._shown)
        self._ranges = True  # whether the service supports them
        self._coding = content_coding(about["ResponseMetadata"].get("HTTPHeaders") or {})
        self._etag = bare_etag(about.get("ETag"))
        self.version = self._etag or None
        # A strong ETag, even if a proxy made it weak: a weak one would never match.
        self._pin = {"IfMatch": f'"{self._etag}"'} if self._etag else {}

    def _head(self) -> Any:
        mode = {"ChecksumMode": "ENABLED"} if self._verifying else {}
        action = _("Looking for %s") % self._shown
        about: Any = {}
        try:
            about = guarded(lambda: self._s3.head_object(**self._name, **mode), action, self._shown)
        except exceptions.NotFound as exc:
            answer = answer_of(exc)
            if answer is None or not answer.is_page:
                raise
        except ERRORS as exc:
            # A response to HEAD has no body, and so does not say why it is a refusal.
            if not (isinstance(exc, exceptions.Forbidden) or is_unknown_feature(exc)):
                raise
        # Some servers say 0 in every response to HEAD, because it has no body.
        if not about.get("ContentLength"):
            about = self._head_of_answer(action)
        return about

    def check_archive(self) -> None:
        """Raise BackendException if the object must be restored before it can be read."""
        if self._archived:
            self._head_of_answer(self._action(0))

    def _head_of_answer(self, action: str) -> Any:
        """Request the first byte: some services and proxies tell the size only then."""
        try:
            answer = guarded(
                lambda: self._s3.get_object(**self._name, **FIRST_BYTE), action, self._shown
            )
        except exceptions.TruncatedImage:
            # The object is empty.
            return {"ContentLength": 0, "ResponseMetadata": {}}
        answer["Body"].close()
        headers = answer["ResponseMetadata"].get("HTTPHeaders") or {}
        size = size_of(answer["ResponseMetadata"]["HTTPStatusCode"], headers)
        # An empty object has an ETag, as every object.
        if not size and (size is None or not answer.get("ETag")):
            raise NoResult(_("%s: the service does not say how large it is") % action)
        return {**answer, "ContentLength": size}

    def _ask(self, offset: int, length: int) -> tuple[_ResponseBody, Part]:
        whole = self._verified and length == self.size
        if whole:
            self._was_whole = True
        elif self._was_whole:
            self._was_whole = False
            LOG.info(
                "Reading %s continues by ranges, which have no checksum: the image is not verified",
                self._shown,
            )
        answer = self._get(
            {} if whole else {"Range": f"bytes={offset}-{offset + length - 1}"}, offset
        )
        try:
            part = self._check(answer, offset, length)
        except ERRORS:
            answer["Body"].close()
            raise
        verified = self._verified and whole
        return _ResponseBody(answer["Body"], self._action, verified, self.size, part.start), part

    def _get(self, wanted: dict[str, str], offset: int) -> Any:
        """Request bytes of the version that was opened."""

        def get(*more: dict[str, str]) -> Any:
            arguments = {name: text for each in more for name, text in each.items()}
            return guarded(
                lambda: self._s3.get_object(**self._name, **arguments),
                self._action(offset),
                self._shown,
            )

        if not self._ranges:
            wanted = {}
        try:
            return get(self._pin, wanted)
        except ERRORS as exc:
            unknown = is_unknown_feature(exc) and bool(self._pin or wanted)
            if not unknown and not (self._pin and isinstance(exc, NameTaken)):
                raise
        # The service does not know the condition, or compares ETags in its own way: its response
        # shows whether the version is the same.
        try:
            answer = self._without_range(get, wanted) if unknown else get(wanted)
        except NameTaken:
            # However it compares, the object has changed.
            raise self._replaced(offset) from None
        if bare_etag(answer.get("ETag")) == self._etag:
            self._pin = {}
            return answer
        answer["Body"].close()
        raise self._replaced(offset)

    def _without_range(self, get: Callable[..., Any], wanted: dict[str, str]) -> Any:
        """Request without the condition, and without the range if that is refused too."""
        if self._pin:
            try:
                return get(wanted)
            except ERRORS as exc:
                if not (wanted and is_unknown_feature(exc)):
                    raise
        answer = get()
        self._ranges = False
        return answer

    def _check(self, answer: Any, offset: int, length: int) -> Part:
        about = answer["ResponseMetadata"]
        part = part_of(
            about["HTTPStatusCode"],
            about.get("HTTPHeaders") or {},
            offset,
            length,
            self.size,
            self._action(offset),
            self._coding,
        )
        etag = bare_etag(answer.get("ETag"))
        if etag and self._etag and etag != self._etag:
            raise self._replaced(offset)
        return part

    def _replaced(self, offset: int) -> exceptions.RemoteServiceUnavailable:
        return exceptions.RemoteServiceUnavailable(
            _(
                "The object %(name)s was replaced while it was being read, at byte %(offset)d: "
                "discard what was read and start the download again"
            ),
            name=self._shown,
            offset=offset,
        )

    def _action(self, offset: int) -> str:
        return str(
            _("Reading %(name)s at byte %(offset)d") % {"name": self._shown, "offset": offset}
        )


class _ResponseBody:
    """The body of a response; with `verified`, its checksum is compared at the end."""

    def __init__(self, body: Any, action: Any, verified: bool, size: int, position: int) -> None:
        self._body = body
        self._action = action
        self._verified = verified
        self._size = size
        self._position = position

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes; verify the checksum before the last ones."""
        data = self._receive(length)
        self._position += len(data)
        if self._verified and self._position == self._size:
            # The client library compares the checksum when it is read past the end.
            self._receive(1)
        return data

    def _receive(self, wanted: int) -> bytes:
        import botocore.exceptions

        def receive() -> bytes:
            try:
                return bytes(self._body.read(wanted))
            except botocore.exceptions.FlexibleChecksumError as exc:
                mismatch = str(exc)
            raise exceptions.BackendException(
                _(
                    "%(action)s: the checksum does not match, so the data was damaged in transit "
                    "or in storage (%(mismatch)s)"
                )
                % {"action": self._action(self._position), "mismatch": mismatch}
            )

        return guarded(receive, self._action(self._position))

    def interrupt(self) -> None:
        break_off(getattr(self._body, "_raw_stream", None))

    def close(self) -> None:
        self._body.close()


def _has_checksum(about: dict[str, Any]) -> bool:
    """Tell whether the client library can compute the checksum of the whole object."""
    from botocore.compat import HAS_CRT

    if about.get("ChecksumType") == "COMPOSITE":
        return False
    names = _COMPUTED + (_COMPUTED_WITH_CRT if HAS_CRT else ())
    # "...-3" is computed from the checksums of three parts.
    return any("-" not in about.get(name, "-") for name in names)
