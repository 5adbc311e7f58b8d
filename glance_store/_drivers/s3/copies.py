# SPDX-License-Identifier: Apache-2.0
"""Copies made by the service, without the bytes passing through this host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers._objects.errors import ERRORS, NoResult, is_refusal
from glance_store._drivers.s3.errors import is_unknown_feature
from glance_store._drivers.s3.upload import Upload
from glance_store.i18n import _
from glance_store.transfer.multipart import MIB, EqualParts, Limits
from glance_store.transfer.partwise import CannotCopyError, PartRange, copy_parts, part_ranges

if TYPE_CHECKING:
    from glance_store._drivers.s3.bucket import Bucket
    from glance_store._drivers.s3.client import Client

LOG = logging.getLogger(__name__)

# A service that moves the bytes itself must answer before the request times out.
_PART = 128 * MIB


class Original(NamedTuple):
    """The object to copy."""

    bucket: str
    key: str
    etag: str
    size: int


class Copy(Upload):
    """An object made of parts of another one; published like any other upload.

    CopyObject exists as well, but few services accept it on the condition that nothing is there.
    """

    def __init__(
        self, client: Client, bucket: Bucket, key: str, uri: str, original: Original
    ) -> None:
        super().__init__(client, bucket, key)
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self._original = original
        self._source: dict[str, Any] = {
            "CopySource": {"Bucket": original.bucket, "Key": original.key}
        }
        if original.etag:
            self._source["CopySourceIfMatch"] = f'"{original.etag}"'

    def _announced(self, create: Callable[[dict[str, Any]], Any]) -> Any:
        # The service decides whether the parts it copies have a checksum.
        return create({})

    def copy(self, limits: Limits, concurrency: int, progress: Callable[[int], None]) -> bool:
        """Copy all bytes; return False if the service cannot, or not for this key."""
        size = self._original.size
        parts = part_ranges(EqualParts(_PART, limits, size), size)
        self.begin()
        return copy_parts(parts, self._copy_part, concurrency, progress, self.interrupt)

    def _copy_part(self, part: PartRange) -> None:
        action = _("Copying part %(number)d of %(name)s") % {
            "number": part.number,
            "name": self.shown,
        }

        def send() -> Any:
            answer = self._s3.upload_part_copy(
                **self._name,
                **self._source,
                UploadId=self._id,
                PartNumber=part.number,
                CopySourceRange=f"bytes={part.start}-{part.stop - 1}",
            )
            result = answer.get("CopyPartResult") or {}
            if not result.get("ETag"):
                raise NoResult(_("%s: the service did not confirm the copy") % action)
            return result

        try:
            self._keep(part.number, self._ask(send, action))
        except ERRORS as exc:
            if is_refusal(exc) or is_unknown_feature(exc):
                raise CannotCopyError(str(exc)) from exc
            raise

    def commit(self, size: int) -> None:
        """Join the parts, and check the size of the object."""
        self.complete(size)
        try:
            found = self.look()
        except ERRORS as exc:
            # Trust the response: the object is there.
            LOG.debug("%s was copied, but cannot be checked: %s", self.shown, exc)
            return
        if found is not None and found.size not in (None, 0, size):
            raise exceptions.BackendException(
                f"The service copied {found.size} of {size} bytes to {self.shown}"
            )
