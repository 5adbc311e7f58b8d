# SPDX-License-Identifier: Apache-2.0
"""What a bucket holds: images, and unfinished multipart uploads."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers._objects.errors import NoResult
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import guarded, is_unknown_feature
from glance_store.i18n import _
from glance_store.inventory import COMPLETE, FOREIGN, Leftover, StoredImage
from glance_store.transfer.retry import Patience

# By operation: the arguments of the next page, and the fields of the last one that have them.
_NEXT = {
    "list_objects_v2": {"ContinuationToken": "NextContinuationToken"},
    "list_objects": {"Marker": "NextMarker"},
    "list_multipart_uploads": {
        "KeyMarker": "NextKeyMarker",
        "UploadIdMarker": "NextUploadIdMarker",
    },
    "list_parts": {"PartNumberMarker": "NextPartNumberMarker"},
}


class NoNextPage(exceptions.BackendException):
    """A list has more pages, but the service does not say how to get them."""


def images(
    client: Client, bucket: str, uri_of: Callable[[str], str | None], patience: Patience
) -> Iterator[StoredImage]:
    """Yield all objects of a bucket; those without a location are not images."""
    action = _("Listing the bucket %s") % bucket
    for page in _object_pages(client.s3, bucket, action, patience):
        for entry in page.get("Contents", ()):
            size, uri = entry.get("Size"), uri_of(entry["Key"])
            yield StoredImage(
                image_id=entry["Key"],
                uri=uri,
                size=size,
                state=FOREIGN if uri is None else COMPLETE,
                modified=_seconds(entry.get("LastModified")),
                used=size,
            )


def _object_pages(
    s3: Any, bucket: str, action: str, patience: Patience
) -> Iterator[dict[str, Any]]:
    """Yield the pages of the list of a bucket, of the older kind if the service has only that."""
    after: dict[str, str] = {}
    try:
        for page in pages(s3, "list_objects_v2", action, patience, Bucket=bucket):
            yield page
            for entry in page.get("Contents", ())[-1:]:
                after = {"Marker": entry["Key"]}
    except exceptions.BackendException as exc:
        # An older RADOS gateway takes the request for one of the older kind.
        if not isinstance(exc, NoNextPage) and not is_unknown_feature(exc):
            raise
    else:
        return
    yield from pages(s3, "list_objects", action, patience, Bucket=bucket, **after)


def leftovers(
    client: Client, bucket: str, older_than: float, patience: Patience
) -> Iterator[Leftover]:
    """Yield multipart uploads that have received no part for `older_than` seconds."""
    action = _("Listing the unfinished uploads of the bucket %s") % bucket
    for page in pages(client.s3, "list_multipart_uploads", action, patience, Bucket=bucket):
        for entry in page.get("Uploads", ()):
            upload = {"Bucket": bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]}
            try:
                size, latest = _state_of(client, upload, _seconds(entry.get("Initiated")), patience)
            except exceptions.NotFound:
                # Finished or aborted meanwhile.
                continue
            if latest is None or latest > time.time() - older_than:
                continue

            def remove(upload: dict[str, str] = upload, latest: float = latest) -> None:
                _abort(client, upload, latest, patience)

            yield Leftover(
                name=f"upload {entry['UploadId']} of {bucket}/{entry['Key']}",
                size=size,
                modified=latest,
                proof=_("it was never finished, and has received no part since then"),
                remove=remove,
            )


def _state_of(
    client: Client, upload: dict[str, str], begun: float | None, patience: Patience
) -> tuple[int, float | None]:
    """Return the size of an unfinished upload, and when its last part arrived."""
    size, latest = 0, begun
    action = _("Listing the parts of %s") % upload["Key"]
    for page in pages(client.s3, "list_parts", action, patience, **upload):
        for part in page.get("Parts", ()):
            size += int(part.get("Size", 0))
            came = _seconds(part.get("LastModified"))
            if came is not None:
                latest = came if latest is None else max(latest, came)
    return size, latest


def _abort(client: Client, upload: dict[str, str], latest: float, patience: Patience) -> None:
    action = _("Aborting an unfinished upload of %s") % upload["Key"]
    try:
        _size, now = _state_of(client, upload, None, patience)
        if now is not None and now > latest:
            raise exceptions.InUseByStore(
                _("%(key)s is being uploaded: a part has just arrived"), key=upload["Key"]
            )
        patience.call(
            lambda: guarded(
                lambda: client.s3.abort_multipart_upload(**upload), action, upload["Key"]
            )
        )
    except exceptions.NotFound:
        # Finished or aborted meanwhile.
        return


def pages(
    s3: Any, operation: str, action: str, patience: Patience, **arguments: Any
) -> Iterator[dict[str, Any]]:
    """Yield the pages of a list; raise BackendException if the service does not say all of it.

    The client library's own paginator ends after an error, as if it had reached the last page.
    """
    seen: set[tuple[str, ...]] = set()

    def ask() -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            page: dict[str, Any] = getattr(s3, operation)(**arguments)
            return page
        raise NoResult(_("%s: a number in the response is none") % action)

    while True:
        page = patience.call(lambda: guarded(ask, action, action))
        yield page
        if not page.get("IsTruncated"):
            return
        following = _NEXT[operation]
        marker = tuple(page.get(name, "") for name in following.values())
        if operation == "list_objects" and not any(marker):
            # The key of the last object does as well.
            marker = tuple(entry["Key"] for entry in page.get("Contents", ())[-1:])
        if not any(marker):
            raise NoNextPage(f"{action}: the service does not say where the list goes on")
        if marker in seen:
            raise exceptions.BackendException(
                f"{action}: the service repeats itself, so the list never ends"
            )
        seen.add(marker)
        arguments.update(zip(following, marker, strict=True))


def _seconds(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
