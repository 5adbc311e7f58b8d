# SPDX-License-Identifier: Apache-2.0
"""One object on its way in: one PUT, or a multipart upload; and the removal of all of it.

An answer can be lost after the service has done what was asked. Every upload therefore marks its
object with a random number of its own: whether an object that is there is this upload's can be told
for certain, and no other one is ever removed.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers.s3.body import Body
from glance_store._drivers.s3.errors import (
    ConflictingRequest,
    DamagedOnTheWay,
    NotImplementedByService,
    PreconditionFailed,
    answer_of,
    guarded,
    is_refusal,
    keep_answer,
)
from glance_store.common.locks import CREATING
from glance_store.i18n import _

if TYPE_CHECKING:
    import datetime

    from glance_store._drivers.s3.bucket import Bucket
    from glance_store._drivers.s3.client import Client
    from glance_store._drivers.s3.clock import ServiceClock

LOG = logging.getLogger(__name__)

_MARK = "glance-store-upload"
# Tries to remove what a failed upload has left, beyond those that botocore makes for each request.
_ROUNDS = 3
_PAUSE = 0.5
# What the translation of errors raises.
_ERRORS = (exceptions.GlanceStoreException, exceptions.BackendException)
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
    :param clock: tells the service's time, None if that is unknown
    """

    def __init__(
        self, client: Client, bucket: Bucket, key: str, clock: ServiceClock | None
    ) -> None:
        self._client = client
        self._s3 = client.s3
        self._bucket = bucket
        self._name = {"Bucket": bucket.name, "Key": key}
        self._shown = f"{bucket.name}/{key}"
        self._mark = uuid.uuid4().hex
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = False
        self._failure: BaseException | None = None  # why it could not begin
        # Between which of the service's times a multipart upload of unknown id was created.
        self._span: tuple[datetime.datetime, datetime.datetime] | None = None
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
        action = _("Storing %s") % self._shown
        arguments = {**self._name, "Body": body, **self._protection(body)}
        arguments["Metadata"] = {_MARK: self._mark}

        def send() -> Any:
            return self._deliver(body, lambda: self._s3.put_object(**arguments), action)

        try:
            with CREATING.holding(self._identity()):
                self._create(lambda: self._ask(send, action, first=True), action)
        finally:
            body.release()

    def part(self, number: int, block: memoryview) -> None:
        """Send a part; the first one begins the multipart upload.

        :param number: of the part, from 1
        :param block: its bytes
        :raises DamagedOnTheWay: another part has arrived than was sent, each time
        """
        upload_id = self._begin()
        body = Body(block)
        action = _("Storing part %(number)d of %(name)s") % {"number": number, "name": self._shown}
        arguments = {
            **self._name,
            "UploadId": upload_id,
            "PartNumber": number,
            "ContentLength": len(body),
            "Body": body,
            **self._protection(body),
        }

        def send() -> Any:
            return self._deliver(body, lambda: self._s3.upload_part(**arguments), action)

        try:
            answer = self._ask(send, action)
        finally:
            body.release()
        checksums = {name: answer[name] for name in _CHECKSUMS if name in answer}
        self._parts[number] = {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    def complete(self) -> None:
        """Join the parts: now the object is there.

        :raises Duplicate: there is such an object
        """
        parts = [self._parts[number] for number in sorted(self._parts)]
        action = _("Joining the parts of %s") % self._shown

        def send() -> Any:
            return self._s3.complete_multipart_upload(
                **self._name, UploadId=self._id, MultipartUpload={"Parts": parts}
            )

        with CREATING.holding(self._identity()):
            # Also where the service knows the condition: not all that ignore it say so.
            if self._found_mark() is not None:
                raise self._duplicate()
            self._create(lambda: self._ask(send, action), action)
        if self._strays:
            self._clean(self._sweep)

    def _protection(self, body: Body) -> dict[str, str]:
        return {"ContentMD5": body.content_md5()} if self._client.settings.sends_md5 else {}

    def _identity(self) -> tuple[str, ...]:
        return (self._client.settings.place.host, *self._name.values())

    def _duplicate(self) -> exceptions.Duplicate:
        return exceptions.Duplicate(_("Image %(image)s already exists"), image=self._shown)

    def _ask(self, send: Callable[[], Any], action: str, first: bool = False) -> Any:
        """Send a request; when the bucket has gone, see to it that there is one the next time.

        :param first: it is the first request of this upload: the next time is now
        """
        try:
            return guarded(send, action)
        except exceptions.BackendException as exc:
            answer = answer_of(exc)
            if answer is None or answer.code != "NoSuchBucket":
                raise
            self._bucket.forget()
            if not first:
                raise
        try:
            self._bucket.ensure(self._client)
        except _ERRORS as exc:
            # Whatever has become of the bucket, the upload was refused.
            keep_answer(exc, answer)
            raise
        return guarded(send, action)

    def _deliver(self, body: Body, send: Callable[[], Any], action: str) -> Any:
        """Send a body, again when the service says that something else has arrived."""
        tries = 0
        while True:
            body.seek(0)
            try:
                return guarded(send, action)
            except DamagedOnTheWay as exc:
                answer = answer_of(exc)
                # Some of the client library's ways to retry have such a case as well.
                tries += 1 + (answer.retries if answer else 0)
                if tries >= self._client.settings.attempts:
                    raise
                LOG.warning("It is sent again: %s", exc)

    def _begin(self) -> str:
        """Create the multipart upload, once; return its id."""
        with self._lock:
            if self._id is not None:
                return self._id
            if self._failure is not None:
                # Another thread's, which may be slower to tell it.
                raise self._failure
            self._begun = self._strays = True
            begun = time.monotonic()
            try:
                answer = self._ask(
                    lambda: self._s3.create_multipart_upload(
                        **self._name, Metadata={_MARK: self._mark}
                    ),
                    _("Beginning the upload of %s") % self._shown,
                    first=True,
                )
            except BaseException as exc:
                self._failure = exc
                self._strays = not is_refusal(exc)
                raise
            finally:
                if self._clock is not None:
                    self._span = self._clock.span(begun, time.monotonic())
            self._id = str(answer["UploadId"])
            # A try whose answer was lost may have created one more, of which nobody knows.
            self._strays = bool(answer["ResponseMetadata"].get("RetryAttempts"))
            return self._id

    def _create(self, send: Callable[[], Any], action: str) -> None:
        """Send the request that creates the object, and make its outcome certain."""
        self._created = True
        certain = True
        conflict: Exception | None = None
        while True:
            error = self._send_conditionally(send, action)
            if error is None:
                return
            certain = certain and is_refusal(error)
            try:
                mark = self._found_mark()
            except _ERRORS:
                # Not even that can be asked; the removal will try again.
                raise error from None
            if mark == self._mark:
                LOG.info("%s is there although the answer was an error: %s", self._shown, error)
                return
            if conflict or mark is not None or not isinstance(error, ConflictingRequest):
                break
            # Another request of this name was under way and has come to nothing: once more.
            conflict = error
        # What is not refused may still be under way; the removal looks again.
        self._created = not certain
        if mark is not None or isinstance(error, PreconditionFailed):
            raise self._duplicate()
        raise conflict or error

    def _send_conditionally(self, send: Callable[[], Any], action: str) -> Exception | None:
        """Send the request, without the condition where the service does not know it.

        :returns: the error
        """
        conditions = self._client.conditions
        was_conditional = conditions.supported
        try:
            guarded(send, action)
            return None
        except NotImplementedByService as exc:
            if not was_conditional:
                return exc
        except _ERRORS as exc:
            return exc
        LOG.warning(
            "The S3 service at %s cannot create objects on the condition that there is none "
            "(If-None-Match): of two uploads of one image by two processes at the same moment the "
            "later one is stored",
            self._client.settings.place.shown,
        )
        conditions.supported = False
        try:
            guarded(send, action)
            return None
        except _ERRORS as exc:
            return exc

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
            except _ERRORS as exc:
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

        Uploads of others are left alone: those that were begun at another time, or that have parts.
        """
        for found in self._unfinished():
            upload_id = str(found["UploadId"])
            if (
                upload_id != self._id
                and self._may_be_ours(found.get("Initiated"))
                and not self._has_parts(upload_id)
            ):
                self._abort_upload(upload_id)
        self._strays = False

    def _may_be_ours(self, initiated: datetime.datetime | None) -> bool:
        if self._span is None or initiated is None:
            return True
        earliest, latest = self._span
        return earliest <= initiated <= latest

    def _unfinished(self) -> Iterator[dict[str, Any]]:
        """Yield the unfinished multipart uploads of this key."""
        arguments = {"Bucket": self._name["Bucket"], "Prefix": self._name["Key"]}
        pages = set()
        while True:
            page = guarded(
                lambda: self._s3.list_multipart_uploads(**arguments),
                _("Listing the uploads of %s") % self._shown,
            )
            for item in page.get("Uploads", ()):
                if item["Key"] == self._name["Key"]:
                    yield item
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            marker = page["NextKeyMarker"], page.get("NextUploadIdMarker", "")
            if marker in pages:
                raise exceptions.BackendException(
                    f"Listing the uploads of {self._shown}: the service repeats itself, the list "
                    "has no end"
                )
            pages.add(marker)
            arguments["KeyMarker"], arguments["UploadIdMarker"] = marker

    def _remove(self) -> None:
        """Remove the object, if it is the one of this upload.

        A request that has got no answer may still be under way: so the object may come later.
        """
        for number in range(_ROUNDS):
            if number:
                time.sleep(_PAUSE * 2**number)
            mark = self._found_mark()
            if mark is not None:
                break
        if mark == self._mark:
            version = {"VersionId": self._version} if self._version else {}
            guarded(
                lambda: self._s3.delete_object(**self._name, **version),
                _("Removing %s") % self._shown,
            )
        elif mark is None:
            LOG.warning(
                "%s: the service has not said whether it is stored; it is not there, and should it "
                "appear later, no image refers to it",
                self._shown,
            )
        self._created = False
