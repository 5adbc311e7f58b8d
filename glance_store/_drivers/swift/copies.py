# SPDX-License-Identifier: Apache-2.0
"""Copies made by Swift within one account, without the bytes passing through this host."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from glance_store._drivers._objects.errors import ERRORS, is_refusal
from glance_store._drivers.swift import large
from glance_store.i18n import _
from glance_store.transfer.partwise import CannotCopyError, PartRange, copy_parts, part_ranges

if TYPE_CHECKING:
    from glance_store._drivers.swift.upload import Upload
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


def copy(
    upload: Upload,
    original: Original,
    plan: Plan,
    concurrency: int,
    progress: Callable[[int], None],
) -> bool:
    """Copy all bytes to segments of an upload; return False if the cluster cannot."""
    return copy_parts(
        part_ranges(plan, original.size),
        lambda part: _copy_part(upload, original, part),
        concurrency,
        progress,
        upload.interrupt,
    )


def _copy_part(upload: Upload, original: Original, part: PartRange) -> None:
    length = part.stop - part.start
    is_all = length == original.size
    name = upload.attempt(part.number)
    action = _("Copying to the segment %s") % name
    source = urllib.parse.quote(f"{original.container}/{original.obj}")
    # Leave out the metadata of the image: its mark is that of another upload.
    headers = {"X-Copy-From": source, "X-Fresh-Metadata": "true", "Content-Length": "0"}
    if not is_all:
        headers["Range"] = f"bytes={part.start}-{part.stop - 1}"

    def put() -> None:
        upload.put(
            name,
            action,
            lambda: b"",
            lambda: original.etag if is_all else None,
            headers=headers,
            extra_timeout=length / _SLOWEST,
        )

    try:
        upload.into_container(put)
    except ERRORS as exc:
        if is_refusal(exc):
            raise CannotCopyError(str(exc)) from exc
        raise
    # A server that ignored one of these headers stored nothing, or too much.
    found = upload.request("HEAD", name, action=action).headers
    if found.get("content-length") != str(length):
        raise CannotCopyError(f"{action}: {found.get('content-length')} bytes instead of {length}")
    upload.stored(part.number, large.etag_in(found), length)
