# SPDX-License-Identifier: Apache-2.0
"""An image that Swift makes from another one of the same account, without its bytes coming here."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store._drivers._objects.errors import ERRORS, is_refusal
from glance_store._drivers._objects.ranges import bare_etag
from glance_store._drivers.swift.upload import Upload, check_stored
from glance_store.i18n import _
from glance_store.transfer.partwise import CannotCopyError, PartRange, copy_parts, part_ranges

if TYPE_CHECKING:
    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.multipart import Plan

# Bytes that a cluster copies in a second at least: until it has, it says nothing.
_SLOWEST = 2 * 1024 * 1024


class Original(NamedTuple):
    """The image that is copied."""

    account: str  # its address
    container: str
    obj: str
    size: int
    etag: str | None  # MD5 of all of its bytes, if that is known


class Copy(Upload):
    """An image in segments that are copies of parts of another one; published like any other.

    :param client: of the account
    :param container: of the copy
    :param obj: name of the copy
    :param ensure: makes the container if it has gone
    :param uri: location of the copy
    :param original: what is copied
    """

    def __init__(
        self,
        client: Client,
        container: str,
        obj: str,
        ensure: Callable[[], bool],
        uri: str,
        original: Original,
    ) -> None:
        super().__init__(client, container, obj, ensure, verify=False)
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self._original = original

    def copy(self, plan: Plan, concurrency: int, progress: Callable[[int], None]) -> bool:
        """Have all bytes copied.

        :param plan: sizes of the segments
        :param concurrency: segments at once
        :param progress: called with the bytes of each
        :returns: False: the cluster does not do that
        """
        parts = part_ranges(plan, self._original.size)
        return copy_parts(parts, self._copy_part, concurrency, progress, self.interrupt)

    def commit(self, size: int) -> None:
        """Write the manifest.

        :param size: bytes of the image
        :raises Duplicate: another upload was first
        """
        self.complete(size)

    def _copy_part(self, part: PartRange) -> None:
        original, length = self._original, part.stop - part.start
        is_all = length == original.size
        name = self.attempt(part.number)
        action = _("Copying to the segment %s") % name
        source = urllib.parse.quote(f"{original.container}/{original.obj}")
        # Without the metadata of the image: its mark is that of another upload.
        headers = {"X-Copy-From": source, "X-Fresh-Metadata": "true", "Content-Length": "0"}
        if not is_all:
            headers["Range"] = f"bytes={part.start}-{part.stop - 1}"

        def put() -> None:
            self._request(
                "PUT",
                name,
                action=action,
                headers=headers,
                body=lambda: b"",
                more=length / _SLOWEST,
                check=lambda response: check_stored(
                    response, original.etag if is_all else None, action
                ),
            )

        try:
            self.into_container(put)
        except ERRORS as exc:
            if is_refusal(exc):
                raise CannotCopyError(str(exc)) from exc
            raise
        # A server that ignores one of these headers has stored nothing, or too much.
        found = self._request("HEAD", name, action=action).headers
        if found.get("content-length") != str(length):
            raise CannotCopyError(
                f"{action}: {found.get('content-length')} bytes instead of {length}"
            )
        self.stored(part.number, bare_etag(found.get("etag")).lower(), length)
