# SPDX-License-Identifier: Apache-2.0
"""One object on its way in: one PUT, or a multipart upload; and the removal of all of it.

An answer can be lost after the service has done what was asked. Every upload therefore marks its
object with a random number of its own: whether an object that is there is this upload's can be told
for certain, and no other one is ever removed.
"""

from __future__ import annotations

import datetime
import email.utils
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from glance_store import exceptions
from glance_store._drivers.s3.body import Body
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import NotImplementedByService, PreconditionFailed, guarded
from glance_store.common.locks import CREATING
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

_MARK = "glance-store-upload"
# Tries to remove what a failed upload has left, beyond those that botocore makes for each request.
_ROUNDS = 3
_PAUSE = 0.5
# The checksums that a service may return for a part, and wants to see again at the end.
_CHECKSUMS = (
    "ChecksumCRC32",
    "ChecksumCRC32C",
    "ChecksumCRC64NVME",
    "ChecksumSHA1",
    "ChecksumSHA256",
)


class Upload:
    """An object that is being created.

    :param client: sends the requests
    :param bucket: where to
    :param key: name of the object
    :param since: the service's time when the upload began, None if it is unknown
    """

    def __init__(
        self, client: Client, bucket: str, key: str, since: datetime.datetime | None
    ) -> None:
        self._client = client
        self._s3 = client.s3
        self._name = {"Bucket": bucket, "Key": key}
        self._shown = f"{bucket}/{key}"
        self._mark = uuid.uuid4().hex
        self._since = since
        self._lock = threading.Lock()
        self._begun = False
        self._id: str | None = None
        self._parts: dict[int, dict[str, Any]] = {}
        self._strays = False  # a further multipart upload may have been created
        self._created = False  # the object may have been created
        self._version: str | None = None

    @property
    def in_parts(self) -> bool:
        """Whether parts have been sent."""
        return self._begun

    # -- sending

    def put(self, block: memoryview | bytes) -> None:
        """Create the object from all of its bytes.

        :param block: the bytes
        :raises Duplicate: there is such an object
        """
        body = Body(block)
        arguments = {**self._name, "Body": body, **self._protection(body)}
        arguments["Metadata"] = {_MARK: self._mark}
        try:
            with CREATING.holding(self._identity()):
                self._create(
                    lambda: self._s3.put_object(**arguments), _("Storing %s") % self._shown
                )
        finally:
            body.release()

    def part(self, number: int, block: memoryview) -> None:
        """Send a part; the first one begins the multipart upload.

        :param number: of the part, from 1
        :param block: its bytes
        """
        upload_id = self._begin()
        body = Body(block)
        try:
            answer = guarded(
                lambda: self._s3.upload_part(
                    **self._name,
                    UploadId=upload_id,
                    PartNumber=number,
                    ContentLength=len(body),
                    Body=body,
                    **self._protection(body),
                ),
                _("Storing part %(number)d of %(name)s") % {"number": number, "name": self._shown},
            )
        finally:
            body.release()
        checksums = {name: answer[name] for name in _CHECKSUMS if name in answer}
        self._parts[number] = {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    def complete(self) -> None:
        """Join the parts: now the object is there.

        :raises Duplicate: there is such an object
        """
        parts = [self._parts[number] for number in sorted(self._parts)]
        with CREATING.holding(self._identity()):
            # Also where the service knows the condition: not all that ignore it say so.
            if self._found_mark() is not None:
                raise self._duplicate()
            self._create(
                lambda: self._s3.complete_multipart_upload(
                    **self._name, UploadId=self._id, MultipartUpload={"Parts": parts}
                ),
                _("Joining the parts of %s") % self._shown,
            )
        if self._strays:
            self._clean(self._sweep)

    def _protection(self, body: Body) -> dict[str, str]:
        return {"ContentMD5": body.content_md5()} if self._client.settings.sends_md5 else {}

    def _identity(self) -> tuple[str, ...]:
        return (self._client.settings.place.host, *self._name.values())

    def _duplicate(self) -> exceptions.Duplicate:
        return exceptions.Duplicate(_("Image %(image)s already exists"), image=self._shown)

    def _begin(self) -> str:
        """Create the multipart upload, once; return its id."""
        with self._lock:
            if self._id is not None:
                return self._id
            if self._begun:
                raise exceptions.BackendException(f"The upload of {self._shown} could not begin")
            self._begun = self._strays = True
            answer = guarded(
                lambda: self._s3.create_multipart_upload(
                    **self._name, Metadata={_MARK: self._mark}
                ),
                _("Beginning the upload of %s") % self._shown,
            )
            self._id = str(answer["UploadId"])
            # A try whose answer was lost may have created one more, of which nobody knows.
            self._strays = bool(answer["ResponseMetadata"].get("RetryAttempts"))
            return self._id

    def _create(self, send: Callable[[], Any], action: str) -> None:
        """Send the request that creates the object, and make its outcome certain."""
        self._created = True
        try:
            self._send_conditionally(send, action)
            return
        except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
            error = exc
        try:
            mark = self._found_mark()
        except (exceptions.GlanceStoreException, exceptions.BackendException):
            # Not even that can be asked; the removal will try again.
            raise error from None
        if mark == self._mark:
            LOG.info("%s is there although the answer was an error: %s", self._shown, error)
            return
        self._created = False
        if mark is not None or isinstance(error, PreconditionFailed):
            raise self._duplicate()
        raise error

    def _send_conditionally(self, send: Callable[[], Any], action: str) -> None:
        conditions = self._client.conditions
        was_conditional = conditions.supported
        try:
            guarded(send, action)
            return
        except NotImplementedByService:
            if not was_conditional:
                raise
        LOG.warning(
            "The S3 service at %s cannot create objects on the condition that there is none "
            "(If-None-Match): of two uploads of one image by two processes at the same moment the "
            "later one is stored",
            self._client.settings.place.shown,
        )
        conditions.supported = False
        guarded(send, action)

    def _found_mark(self) -> str | None:
        """Return the mark of the object that is there, "" for one without; None if there is none.

        :raises GlanceStoreException: that cannot be found out
        """
        try:
            found = guarded(
                lambda: self._s3.head_object(**self._name),
                _("Looking for %s") % self._shown,
                self._shown,
            )
        except exceptions.NotFound:
            return None
        self._version = found.get("VersionId")
        return str(found.get("Metadata", {}).get(_MARK, ""))

    # -- removing

    def discard(self) -> None:
        """Remove all that this upload has left in the service.

        :raises BackendException: something could not be removed; the text says what
        """
        left = []
        if self._id is not None and not self._clean(self._abort):
            left.append(f"the unfinished multipart upload {self._id} of {self._shown}")
        if self._strays and not self._clean(self._sweep):
            left.append(f"perhaps an unfinished multipart upload of {self._shown}")
        if self._created and not self._clean(self._remove):
            left.append(f"perhaps the object {self._shown}")
        if left:
            raise exceptions.BackendException(
                f"A failed upload has left {' and '.join(left)}: remove it by hand, or by a "
                "lifecycle rule of the bucket"
            )

    def _clean(self, remove: Callable[[], None]) -> bool:
        """Remove something, with further tries; tell whether that has worked."""
        for number in range(_ROUNDS):
            if number:
                time.sleep(_PAUSE * 2**number)
            try:
                remove()
            except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
                LOG.warning("Removing what an upload has left failed, try %d: %s", number + 1, exc)
            else:
                return True
        return False

    def _abort(self) -> None:
        self._abort_upload(str(self._id))
        # A part that the service was still taking in may outlive the first request.
        if self._has_parts(str(self._id)):
            self._abort_upload(str(self._id))

    def _abort_upload(self, upload_id: str) -> None:
        try:
            guarded(
                lambda: self._s3.abort_multipart_upload(**self._name, UploadId=upload_id),
                _("Aborting the upload of %s") % self._shown,
                self._shown,
            )
        except exceptions.NotFound:
            LOG.debug("The upload of %s is no more", self._shown)

    def _has_parts(self, upload_id: str) -> bool:
        try:
            answer = guarded(
                lambda: self._s3.list_parts(**self._name, UploadId=upload_id, MaxParts=1),
                _("Listing the parts of %s") % self._shown,
                self._shown,
            )
        except exceptions.NotFound:
            return False
        return bool(answer.get("Parts"))

    def _sweep(self) -> None:
        """Abort a multipart upload whose id is unknown, because the answer with it was lost.

        Uploads of others are left alone: those that were begun before, or that have parts.
        """
        for found in self._unfinished():
            upload_id = str(found["UploadId"])
            begun = found.get("Initiated")
            before = self._since is not None and begun is not None and begun < self._since
            if upload_id != self._id and not before and not self._has_parts(upload_id):
                self._abort_upload(upload_id)
        self._strays = False

    def _unfinished(self) -> list[dict[str, Any]]:
        """Return the unfinished multipart uploads of this key."""
        uploads: list[dict[str, Any]] = []
        arguments = {"Bucket": self._name["Bucket"], "Prefix": self._name["Key"]}
        while True:
            page = guarded(
                lambda: self._s3.list_multipart_uploads(**arguments),
                _("Listing the uploads of %s") % self._shown,
            )
            uploads += [
                item for item in page.get("Uploads", ()) if item["Key"] == self._name["Key"]
            ]
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return uploads
            arguments["KeyMarker"] = page["NextKeyMarker"]
            arguments["UploadIdMarker"] = page.get("NextUploadIdMarker", "")

    def _remove(self) -> None:
        """Remove the object, if it is the one of this upload."""
        if self._found_mark() == self._mark:
            version = {"VersionId": self._version} if self._version else {}
            guarded(
                lambda: self._s3.delete_object(**self._name, **version),
                _("Removing %s") % self._shown,
            )
        self._created = False


def time_of(headers: dict[str, str]) -> datetime.datetime | None:
    """Return the service's time.

    :param headers: of one of its answers
    """
    try:
        return email.utils.parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
