# SPDX-License-Identifier: Apache-2.0
"""Copies made by Swift within one account, without the bytes passing through this host."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store._drivers._objects.errors import ERRORS, is_refusal
from glance_store._drivers._objects.ranges import bare_etag
from glance_store._drivers.swift.upload import Upload
from glance_store.i18n import _
from glance_store.transfer.partwise import CannotCopyError, PartRange, copy_parts, part_ranges

if TYPE_CHECKING:
    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.multipart import Plan

# Bytes per second that a cluster copies at least; it is silent until it has finished.
_SLOWEST = 2 * 1024 * 1024


class Original(NamedTuple):
    """The image to copy."""

    account: str  # its URL
    container: str
    obj: str
    size: int
    etag: str | None  # MD5 of all its bytes, if known


class Copy(Upload):
    """An image in segments that are copies of parts of another one; published like any other."""

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
        """Copy all bytes; return False if the cluster cannot."""
        parts = part_ranges(plan, self._original.size)
        return copy_parts(parts, self._copy_part, concurrency, progress, self.interrupt)

    def commit(self, size: int) -> None:
        """Write the manifest."""
        self.complete(size)

    def _copy_part(self, part: PartRange) -> None:
        original, length = self._original, part.stop - part.start
        is_all = length == original.size
        name = self.attempt(part.number)
        action = _("Copying to the segment %s") % name
        source = urllib.parse.quote(f"{original.container}/{original.obj}")
        # Leave out the metadata of the image: its mark is that of another upload.
        headers = {"X-Copy-From": source, "X-Fresh-Metadata": "true", "Content-Length": "0"}
        if not is_all:
            headers["Range"] = f"bytes={part.start}-{part.stop - 1}"

        def put() -> None:
            self.put(
                name,
                action,
                lambda: b"",
                lambda: original.etag if is_all else None,
                headers=headers,
                extra_timeout=length / _SLOWEST,
            )

        try:
            self.into_container(put)
        except ERRORS as exc:
            if is_refusal(exc):
                raise CannotCopyError(str(exc)) from exc
            raise
        # A server that ignored one of these headers stored nothing, or too much.
        found = self._request("HEAD", name, action=action).headers
        if found.get("content-length") != str(length):
            raise CannotCopyError(
                f"{action}: {found.get('content-length')} bytes instead of {length}"
            )
        self.stored(part.number, bare_etag(found.get("etag")).lower(), length)
