# SPDX-License-Identifier: Apache-2.0
"""Reads one object by ranges, never bytes of two versions; or all of it, to verify its checksum."""

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
    packing,
    part_of,
    size_of,
)
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import guarded, is_unknown_feature
from glance_store.i18n import _
from glance_store.transfer.memory import Memory
from glance_store.transfer.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger(__name__)

# The checksums that the client library can compute, with awscrt and without it.
_COMPUTED = ("ChecksumCRC32", "ChecksumSHA1", "ChecksumSHA256")
_COMPUTED_WITH_CRT = ("ChecksumCRC32C", "ChecksumCRC64NVME")


class S3Reader(RangeReader):
    """An object in a bucket; its size and version are asked for by the constructor.

    Where checksums are to be verified and the object has one of all its bytes, all of it is asked
    for at once when it is read from the first byte to the last one: services send the checksum with
    nothing less. `range_size` is that of the object then, so that the engine cuts nothing.

    :param client: sends the requests
    :param bucket: where the object is
    :param key: its name
    :param concurrency: ranges worth having in flight
    :param range_size: bytes of such a range
    :param memory: that the transfers of the store share
    :param patience: for passing failures
    :raises NotFound: there is no such object
    :raises Forbidden: the service refuses
    :raises BackendUnavailable: the service cannot be reached
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
        self._verified = self._verifying and _has_checksum(about)
        self._was_whole = False  # whether the answer with the checksum has been asked for
        if self._verified:
            self.range_size = max(range_size, self.size)
        elif self._verifying:
            LOG.debug("%s has no checksum of the whole object: it cannot be verified", self._shown)
        self._ranges = True  # whether the service knows them
        self._packed = packing(about["ResponseMetadata"].get("HTTPHeaders") or {})
        self._etag = bare_etag(about.get("ETag"))
        self.version = self._etag or None
        # That of the bytes, whatever a proxy has made of it: a weak one would never match.
        self._pin = {"IfMatch": f'"{self._etag}"'} if self._etag else {}

    def _head(self) -> Any:
        mode = {"ChecksumMode": "ENABLED"} if self._verifying else {}
        action = _("Looking for %s") % self._shown
        about: Any = {}
        try:
            about = guarded(lambda: self._s3.head_object(**self._name, **mode), action, self._shown)
        except ERRORS as exc:
            # Of a refusal the answer to HEAD, which has no body, does not say why.
            if not (isinstance(exc, exceptions.Forbidden) or is_unknown_feature(exc)):
                raise
        if about.get("ContentLength") is None:
            about = self._head_of_answer(action)
        return about

    def _head_of_answer(self, action: str) -> Any:
        """Ask for the first byte: not every service, nor every proxy, tells the size without it."""
        try:
            answer = guarded(
                lambda: self._s3.get_object(**self._name, **FIRST_BYTE), action, self._shown
            )
        except exceptions.TruncatedImage:
            # It has none.
            return {"ContentLength": 0, "ResponseMetadata": {}}
        answer["Body"].close()
        headers = answer["ResponseMetadata"].get("HTTPHeaders") or {}
        size = size_of(answer["ResponseMetadata"]["HTTPStatusCode"], headers)
        if size is None:
            raise NoResult(_("%s: the service does not say how large it is") % action)
        return {**answer, "ContentLength": size}

    def _ask(self, offset: int, length: int) -> tuple[_Body, Part]:
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
        answer = self._get(
            {} if whole else {"Range": f"bytes={offset}-{offset + length - 1}"}, offset
        )
        try:
            part = self._check(answer, offset, length)
        except ERRORS:
            answer["Body"].close()
            raise
        verified = self._verified and whole
        return _Body(answer["Body"], self._action, verified, self.size, part.start), part

    def _get(self, wanted: dict[str, str], offset: int) -> Any:
        """Ask for bytes of the version that was opened."""

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
        # A service that does not know the condition, or one that compares in another way: whether
        # it is the same version shows in its answer.
        try:
            answer = self._without_range(get, wanted) if unknown else get(wanted)
        except NameTaken:
            # Whatever it compares, the object is not what it was.
            raise self._replaced(offset) from None
        if bare_etag(answer.get("ETag")) == self._etag:
            self._pin = {}
            return answer
        answer["Body"].close()
        raise self._replaced(offset)

    def _without_range(self, get: Callable[..., Any], wanted: dict[str, str]) -> Any:
        """Ask without the condition, and without the range where that is refused, too."""
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
            self._packed,
        )
        etag = bare_etag(answer.get("ETag"))
        if etag and self._etag and etag != self._etag:
            raise self._replaced(offset)
        return part

    def _replaced(self, offset: int) -> exceptions.RemoteServiceUnavailable:
        return exceptions.RemoteServiceUnavailable(
            _(
                "The object %(name)s was replaced while it was being read, at byte "
                "%(offset)d: what was read so far is of no use, start the download again"
            ),
            name=self._shown,
            offset=offset,
        )

    def _action(self, offset: int) -> str:
        return str(
            _("Reading %(name)s at byte %(offset)d") % {"name": self._shown, "offset": offset}
        )


class _Body:
    """The body of an answer, with errors of this library.

    :param body: as the client library gives it
    :param action: says what is being read at an offset
    :param verified: whether it knows a checksum, which is compared at its end
    :param size: bytes of the object
    :param position: of its first byte
    """

    def __init__(self, body: Any, action: Any, verified: bool, size: int, position: int) -> None:
        self._body = body
        self._action = action
        self._verified = verified
        self._size = size
        self._position = position

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes.

        :raises BackendUnavailable: the connection broke
        :raises BackendException: the bytes are not those that the checksum is of; before the last
            ones are returned
        """
        data = self._receive(length)
        self._position += len(data)
        if self._verified and self._position == self._size:
            # The client library compares the checksum when it is asked for what follows the end.
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
                    "%(action)s: the bytes do not have the checksum that the service keeps, "
                    "they were damaged on the way or where they are stored (%(mismatch)s)"
                )
                % {"action": self._action(self._position), "mismatch": mismatch}
            )

        return guarded(receive, self._action(self._position))

    def interrupt(self) -> None:
        """End a read in another thread."""
        break_off(getattr(self._body, "_raw_stream", None))

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
