# SPDX-License-Identifier: Apache-2.0
"""One object being stored, by one PUT or by a multipart upload; and the removal of all of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers._objects.body import RequestBody, crc_name
from glance_store._drivers._objects.claim import Claim, Expected, Found
from glance_store._drivers._objects.errors import (
    ERRORS,
    NameTaken,
    NoResult,
    NotSeenYet,
    is_refusal,
)
from glance_store._drivers._objects.ranges import FIRST_BYTE, bare_etag
from glance_store._drivers.s3.clock import ServiceClock, clock_of
from glance_store._drivers.s3.errors import (
    answer_of,
    guarded,
    is_unknown_feature,
    keep_answer,
    may_be_checksum,
    wants_md5,
)
from glance_store._drivers.s3.holdings import pages
from glance_store.i18n import _

if TYPE_CHECKING:
    import datetime

    from glance_store._drivers.s3.bucket import Bucket
    from glance_store._drivers.s3.client import Client

LOG = logging.getLogger(__name__)

_MARK = "glance-store-upload"
_NOT_SUPPORTED = (405, 501)
# Seconds that a service may take to join each part, on top of the store's patience.
_PER_PART = 0.1
# The checksums that a service may return for a part, and wants back at the end.
_CHECKSUMS = (
    "ChecksumCRC32",
    "ChecksumCRC32C",
    "ChecksumCRC64NVME",
    "ChecksumSHA1",
    "ChecksumSHA256",
)


class Upload(Claim):
    """An object being created; `multipart.MultipartWriter` drives it."""

    def __init__(self, client: Client, bucket: Bucket, key: str) -> None:
        settings = client.settings
        super().__init__(
            (settings.endpoint.host, bucket.name, key),
            f"{bucket.name}/{key}",
            settings.new_patience(),
            client.condition,
        )
        self._client = client
        self._s3 = client.s3
        self._bucket = bucket
        self._name = {"Bucket": bucket.name, "Key": key}
        self._lock = threading.Lock()
        self._failure: BaseException | None = None  # why it could not begin
        self._clock: ServiceClock | None = None
        # The service's times between which a multipart upload of unknown id was created.
        self._span: tuple[datetime.datetime, datetime.datetime] | None = None
        self._id: str | None = None
        self._parts: dict[int, dict[str, Any]] = {}
        self._strays = False  # a multipart upload of unknown id may have been created
        self._etag = ""  # of the object, once the service has confirmed it

    def _ask(self, send: Callable[[], Any], action: str, image: str | None = None) -> Any:
        return self.patience.call(lambda: guarded(send, action, image))

    # -- the name

    def find(self) -> Found | None:
        """Return the object in place, or None."""
        action = _("Looking for %s") % self.shown
        asked = time.monotonic()
        try:
            about = self._about(action)
        except exceptions.NotFound as exc:
            answer = answer_of(exc)
            if self._clock is None and answer is not None:
                self._clock = clock_of(answer.date, asked, time.monotonic())
            return None
        # HTTP headers: the service or a proxy may have changed the case of their names.
        marks = {name.lower(): text for name, text in about.get("Metadata", {}).items()}
        etag = bare_etag(about.get("ETag"))
        # Not every service keeps metadata. The ETag that it gave this upload's object shows it too.
        usual = self.mark if etag and etag == self._etag else ""
        return Found(
            str(marks.get(_MARK, usual)),
            etag,
            about.get("ContentLength"),
            about.get("VersionId"),
        )

    def _about(self, action: str) -> Any:
        """Return what the service says of the object; a GET may do where HEAD is refused."""
        try:
            return self._ask(lambda: self._s3.head_object(**self._name), action, self.shown)
        except exceptions.BackendException as exc:
            answer = answer_of(exc)
            if answer is None or answer.status not in _NOT_SUPPORTED:
                raise

        def get(**part: str) -> Any:
            return self._ask(lambda: self._s3.get_object(**self._name, **part), action, self.shown)

        try:
            about = get(**FIRST_BYTE)
        except exceptions.TruncatedImage:
            # An empty object has no first byte.
            about = get()
        about["Body"].close()
        return {**about, "ContentLength": None}

    def remove(self, found: Found) -> None:
        """Remove the object."""
        action = _("Removing %s") % self.shown
        if found.version:
            version = {"VersionId": found.version}
            try:
                self._ask(lambda: self._s3.delete_object(**self._name, **version), action)
                return
            except ERRORS as exc:
                # Removing a version needs another right, Object Lock forbids it, and not every
                # service with versions can do it. Without the version, the object is hidden.
                LOG.info("%s; removing it without its version", exc)
        self._ask(lambda: self._s3.delete_object(**self._name), action)

    # -- sending

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        """Create the object in one request."""
        body = RequestBody(block, self.patience)
        action = _("Storing %s") % self.shown
        arguments = {**self._name, "Metadata": {_MARK: self.mark}}

        def put(more: dict[str, Any]) -> Any:
            def send(condition: dict[str, str]) -> Any:
                body.seek(0)
                answer = self._s3.put_object(**arguments, Body=body, **more, **condition)
                return self._confirmed(_require(answer, "ETag", action))

            return self._conditionally(send, action)

        def create() -> Any:
            return self._in_bucket(lambda: self._protected(body, put), first=True)

        try:
            with self.alone():
                self.publish(create, Expected(len(body)), confirm=not self.condition.known)
        finally:
            body.release()

    def begin(self) -> None:
        """Create the multipart upload, once."""
        with self._lock:
            if self._id is not None:
                return
            if self._failure is not None:
                # The failure of another thread, which may be slower to report it.
                raise self._failure
            action = _("Beginning the upload of %s") % self.shown
            arguments: dict[str, Any] = {**self._name, "Metadata": {_MARK: self.mark}}

            def create(more: dict[str, Any]) -> Any:
                answer = guarded(
                    lambda: self._s3.create_multipart_upload(**arguments, **more), action
                )
                return _require(answer, "UploadId", action)

            def send() -> Any:
                try:
                    return self._in_bucket(lambda: self._announced(create), first=True)
                except ERRORS as exc:
                    # A try whose answer was lost may have created an upload of unknown id.
                    self._strays = self._strays or not is_refusal(exc)
                    raise

            begun = time.monotonic()
            try:
                self._id = str(self.patience.call(send)["UploadId"])
            except BaseException as exc:
                self._failure = exc
                self._strays = self._strays or not isinstance(exc, Exception)
                raise
            finally:
                if self._clock is not None:
                    self._span = self._clock.span(begun, time.monotonic())

    def put_part(self, number: int, block: memoryview) -> None:
        """Send a part."""
        body = RequestBody(block, self.patience)
        action = _("Storing part %(number)d of %(name)s") % {"number": number, "name": self.shown}
        arguments: dict[str, Any] = {
            **self._name,
            "UploadId": self._id,
            "PartNumber": number,
            "ContentLength": len(body),
        }

        def put(more: dict[str, Any]) -> Any:
            def send() -> Any:
                body.seek(0)
                return self._s3.upload_part(**arguments, Body=body, **more)

            return _require(guarded(send, action), "ETag", action)

        try:
            answer = self.patience.call(
                lambda: self._in_bucket(lambda: self._protected(body, put), first=False)
            )
        finally:
            body.release()
        self._keep(number, answer)

    def _keep(self, number: int, answer: Any) -> None:
        """Remember what the service said of a part, for `complete`."""
        checksums = {name: answer[name] for name in _CHECKSUMS if name in answer}
        # A strong ETag, even if a proxy made it weak.
        etag = f'"{bare_etag(answer["ETag"])}"'
        self._parts[number] = {"PartNumber": number, "ETag": etag, **checksums}

    def complete(self, size: int) -> None:
        """Join the parts: from now on the object exists."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        action = _("Joining the parts of %s") % self.shown

        def join(condition: dict[str, str]) -> Any:
            answer = self._s3.complete_multipart_upload(
                **self._name, UploadId=self._id, MultipartUpload={"Parts": parts}, **condition
            )
            # RADOS gateway 16.2 sends the element without a value.
            return self._confirmed(_require(answer, "ETag", action, maybe_empty=True))

        def send() -> Any:
            try:
                return self._in_bucket(lambda: self._conditionally(join, action), first=False)
            except exceptions.BackendException as exc:
                answer = answer_of(exc)
                gone = answer is not None and answer.code == "NoSuchUpload"
                if not gone or not self.uncertain:
                    raise
                # An earlier request is still joining the parts, or has joined them.
                unclear = exceptions.BackendUnavailable(
                    _("%s: an earlier request may still be joining the parts") % exc
                )
            raise unclear

        with self.alone():
            self.publish(
                send,
                Expected(size),
                confirm=not self.condition.known,
                extra_seconds=_PER_PART * len(parts),
            )
        if self._strays:
            self._clean(self._sweep)

    def _confirmed(self, answer: Any) -> Any:
        self._etag = bare_etag(answer["ETag"])
        return answer

    def _conditionally(self, send: Callable[[dict[str, str]], Any], action: str) -> Any:
        """Create the object where there is none, if the service supports that condition."""

        def create(where_none: bool) -> Any:
            return guarded(lambda: send({"IfNoneMatch": "*"} if where_none else {}), action)

        # Some services answer 412, whatever is there.
        return self.if_free(
            create, lambda exc: isinstance(exc, NameTaken) or is_unknown_feature(exc), action
        )

    def _protected(self, body: RequestBody, put: Callable[[dict[str, Any]], Any]) -> Any:
        """Send a body with the configured checksum, or the one that the service demands."""
        client = self._client
        given_up = client.settings.sends_checksum and not client.checksum.known
        if client.wants_md5 or given_up:
            return put({"ContentMD5": body.content_md5()})
        checksum: dict[str, Any] = {}
        if client.checksum.known:
            name, value = body.crc
            checksum = {f"Checksum{name}": value}
        try:
            answer = put(checksum)
            client.checksum.is_known()
            return answer
        except ERRORS as exc:
            wanted = wants_md5(exc)
            if not wanted and not (checksum and may_be_checksum(exc)):
                raise
        answer = put({"ContentMD5": body.content_md5()})
        if wanted:
            client.wants_md5 = True
        else:
            client.checksum.is_unknown()
        return answer

    def _announced(self, create: Callable[[dict[str, Any]], Any]) -> Any:
        """Create a multipart upload, and announce the checksum of its parts."""
        checksum = self._client.checksum
        if not checksum.known or self._client.wants_md5:
            return create({})
        try:
            return create({"ChecksumAlgorithm": crc_name()})
        except ERRORS as exc:
            if not may_be_checksum(exc):
                raise
        answer = create({})
        # Parts with a checksum that was not announced are refused.
        checksum.give_up()
        return answer

    def _in_bucket(self, send: Callable[[], Any], first: bool) -> Any:
        """Send a request; if the bucket is gone, make sure that the next try finds one.

        The `first` request of an upload is tried again at once.
        """
        try:
            return send()
        except exceptions.BackendException as exc:
            answer = answer_of(exc)
            if answer is None or answer.code != "NoSuchBucket":
                raise
            self._bucket.forget()
            if not first:
                raise
        try:
            self._bucket.ensure(self._client, self.patience)
        except ERRORS as exc:
            # The upload was refused, whatever happened to the bucket.
            keep_answer(exc, answer)
            raise
        try:
            return send()
        except exceptions.BackendException as exc:
            answer = answer_of(exc)
            if answer is None or answer.code != "NoSuchBucket":
                raise
            # Not all servers know a new bucket yet.
            unseen = NotSeenYet(str(exc))
        keep_answer(unseen, answer)
        raise unseen

    # -- removing

    def interrupt(self) -> None:
        """End the pauses of other threads; requests in flight end within their timeouts."""
        self.patience.stop()

    def abort(self) -> None:
        """Remove everything this upload left; raise BackendException naming what remains."""
        # The old patience may be used up, or stopped.
        self.patience = self._client.settings.new_patience(in_all=True)
        left = []
        if self._id is not None and not self._clean(self._abort):
            left.append(f"the unfinished multipart upload {self._id} of {self.shown}")
        if self._strays and not self._clean(self._sweep):
            left.append(f"perhaps an unfinished multipart upload of {self.shown}")
        if not self._clean(self.withdraw):
            left.append(f"perhaps the object {self.shown}")
        if left:
            raise exceptions.BackendException(
                f"A failed upload has left {' and '.join(left)}: remove it by hand or with a "
                "lifecycle rule of the bucket"
            )

    def _clean(self, remove: Callable[[], None]) -> bool:
        """Remove something; tell whether that worked."""
        try:
            remove()
        except ERRORS as exc:
            LOG.warning("Cannot remove what a failed upload left: %s", exc)
            return False
        return True

    def _abort(self) -> None:
        self._abort_upload(str(self._id))
        # A part that the service was still receiving may outlive the first request.
        if self._has_parts(str(self._id)):
            self._abort_upload(str(self._id))

    def _abort_upload(self, upload_id: str) -> None:
        try:
            self._ask(
                lambda: self._s3.abort_multipart_upload(**self._name, UploadId=upload_id),
                _("Aborting the upload of %s") % self.shown,
                self.shown,
            )
        except exceptions.NotFound:
            LOG.debug("The upload of %s is already gone", self.shown)

    def _has_parts(self, upload_id: str) -> bool:
        try:
            answer = self._ask(
                lambda: self._s3.list_parts(**self._name, UploadId=upload_id, MaxParts=1),
                _("Listing the parts of %s") % self.shown,
                self.shown,
            )
        except (exceptions.NotFound, exceptions.Forbidden):
            # Listing parts needs a right that uploads do not need.
            return False
        return bool(answer.get("Parts"))

    def _sweep(self) -> None:
        """Abort a multipart upload whose id is unknown because the response with it was lost.

        Leave other uploads alone: those begun at another time, and those that have parts.
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
        action = _("Listing the uploads of %s") % self.shown
        name = {"Bucket": self._name["Bucket"], "Prefix": self._name["Key"]}
        for page in pages(self._s3, "list_multipart_uploads", action, self.patience, **name):
            for item in page.get("Uploads", ()):
                if item["Key"] == self._name["Key"]:
                    yield item


def _require(answer: Any, name: str, action: str, maybe_empty: bool = False) -> Any:
    """Return a response that has what a success has; raise NoResult otherwise."""
    if not bare_etag(answer.get(name)) and not (maybe_empty and name in answer):
        raise NoResult(
            _("%(action)s: the response has no %(name)s; it may come from a proxy"),
            action=action,
            name=name,
        )
    return answer
