# SPDX-License-Identifier: Apache-2.0
"""One image on its way in: an object, or segments and the manifest that makes them one."""

from __future__ import annotations

import functools
import logging
import threading
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from glance_store import exceptions
from glance_store._drivers._objects.body import Body
from glance_store._drivers._objects.claim import Claim, Expected, Found, damaged
from glance_store._drivers._objects.errors import ERRORS, DamagedOnTheWay
from glance_store._drivers._objects.ranges import bare_etag
from glance_store._drivers.swift import containers, deleter, errors, large
from glance_store.i18n import _

if TYPE_CHECKING:
    import requests

    from glance_store._drivers.swift.client import Client

_T = TypeVar("_T")

LOG = logging.getLogger(__name__)

# Seconds that the cluster may take to look at one segment of a manifest.
_PER_SEGMENT = 0.5
# Seconds until the listing has all segments, from which Swift counts the bytes of an image.
_LISTING = 20.0
# The data is not what its ETag says.
_DAMAGED = 422


class Upload(Claim):
    """An image that is being stored; does what `multipart.MultipartWriter` asks for.

    :param client: of the account
    :param container: of the image
    :param obj: name of the object
    :param ensure: makes the container if it has gone; says whether it was made for this image
    :param verify: compare the MD5 of each segment with what Swift says of it
    """

    def __init__(
        self,
        client: Client,
        container: str,
        obj: str,
        ensure: Callable[[], bool],
        verify: bool,
    ) -> None:
        identity = client.account.url, container, obj
        super().__init__(identity, obj, client.patience(), client.condition)
        self.client = client
        self.container = container
        self.obj = obj
        self.names = large.Names(container, obj, self.mark)
        self.verify = verify
        self._ensure = ensure
        self._container_made = False
        # Names that the cluster may know, whatever has become of the requests.
        self._attempted: dict[int, str] = {}
        self._stored: dict[int, large.Segment] = {}
        self._lock = threading.Lock()

    # -- the name

    def duplicate(self) -> exceptions.Duplicate:
        """Return the error for a name that is taken, ready to raise."""
        return exceptions.Duplicate(
            _("Image %(image)s already exists in the container %(container)s"),
            image=self.obj,
            container=self.container,
        )

    def find(self) -> Found | None:
        """Return what is in place, None if there is nothing.

        An object that is being put is not in place yet.
        """
        action = _("Looking for image %s") % self.obj
        response = self._request("HEAD", self.obj, action=action, allow=(404,))
        if response.status_code == 404:
            return None
        size = response.headers.get("content-length", "")
        return Found(
            response.headers.get(large.MARK, ""),
            bare_etag(response.headers.get("etag")).lower(),
            int(size) if size.isdecimal() else None,
        )

    def remove(self, found: Found) -> None:
        """Remove the object; of a manifest, that alone."""
        action = _("Removing the unfinished image %s") % self.obj
        self._request("DELETE", self.obj, action=action, allow=(404,))

    def settle(self, found: Found, expected: Expected) -> None:
        """Wait until Swift counts all bytes of the image.

        It adds up those of a dynamic large object by a listing, which can be late: until it is
        complete, readers would get a part of the image.

        :raises SwiftUnavailable: the listing is not complete in time
        """
        tries = self.patience.tries(_LISTING)
        while found.size not in (None, expected.size):
            error = errors.SwiftUnavailable(
                _(
                    "Storing image %(image)s: Swift finds %(found)d of its %(size)d bytes: the "
                    "listing of the container %(container)s is late or too long"
                ),
                image=self.obj,
                found=found.size,
                size=expected.size,
                container=self.container,
            )
            if not tries.again(error):
                raise error
            latest = self.look()
            if latest is None or latest.mark != self.mark:
                raise errors.SwiftError(
                    _("Image %(image)s was removed in the moment in which it was stored"),
                    image=self.obj,
                )
            found = latest

    def _request(self, method: str, obj: str, **more: Any) -> requests.Response:
        return self.client.request(method, self.container, obj, patience=self.patience, **more)

    def headers(self, where_none: bool, more: dict[str, str] | None = None) -> dict[str, str]:
        """Return the headers of a request that is about to create the object.

        :param where_none: on the condition that there is none
        :param more: further headers
        """
        return {
            "Content-Type": "application/octet-stream",
            **({"If-None-Match": "*"} if where_none else {}),
            large.MARK: self.mark,
            **(more or {}),
        }

    def create(self, put: Callable[[bool], _T], action: str) -> _T:
        """Create the object where there is none.

        :param put: sends the request, with that condition or without it
        :param action: what is tried, for errors
        """
        return self.if_free(put, errors.is_unknown_feature, action)

    # -- the container

    def ensure_container(self) -> None:
        """Have the container made if it is not there.

        :raises SwiftError: it may not be made
        """
        if self._ensure():
            self._container_made = True

    def into_container(self, send: Callable[[], _T]) -> _T:
        """Have something sent, once more with its container if that has gone.

        An upload of the same id that failed may have removed it, when it was empty.

        :param send: sends it
        :returns: what `send` returns
        :raises SwiftError: there is no container
        """
        try:
            return send()
        except exceptions.NotFound:
            self.ensure_container()
        return self._in_container(send)

    def _in_container(self, send: Callable[[], _T]) -> _T:
        try:
            return send()
        except exceptions.NotFound:
            # The image that is not found is none that somebody has asked for.
            error = self.container_removed()
        raise error

    def container_removed(self) -> errors.ContainerMissingError:
        """Return the error for a container that is not there, ready to raise."""
        error = errors.ContainerMissingError(
            _("The container %(container)s was removed while image %(image)s was stored"),
            container=self.container,
            image=self.obj,
        )
        error.status = 404  # type: ignore[attr-defined]
        return error

    # -- sending

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        """Store the image as one object.

        :param block: its bytes
        :param md5: of them, in hexadecimal
        :raises Duplicate: another upload was first
        """
        body = Body(block, self.patience)
        # Swift itself refuses what has changed on its way.
        etag = md5 or body.md5
        action = _("Storing image %s") % self.obj

        def put(where_none: bool) -> None:
            self._request(
                "PUT",
                self.obj,
                action=action,
                headers=self.headers(where_none, {"ETag": etag}),
                body=body.rewound,
                again=False,
                allow=(_DAMAGED,),
                check=lambda response: check_stored(response, etag, action),
            )

        try:
            with self.alone():
                send = functools.partial(self.create, put, action)
                self.publish(lambda: self.into_container(send), Expected(len(body), etag))
        finally:
            body.release()
        self.close()

    def begin(self) -> None:
        """Do nothing: segments need no beginning."""

    def attempt(self, number: int) -> str:
        """Return the name of a segment that is about to be sent.

        :param number: from 1
        """
        name = self.names.of(number)
        with self._lock:
            self._attempted[number] = name
        return name

    def stored(self, number: int, etag: str, size: int) -> None:
        """Note that a segment is stored.

        :param number: from 1
        :param etag: MD5 of its bytes, in hexadecimal
        :param size: bytes
        """
        with self._lock:
            self._stored[number] = large.Segment(self._attempted[number], etag, size)

    def put_part(self, number: int, block: memoryview) -> None:
        """Store a segment, as often as it takes.

        :param number: from 1
        :param block: its bytes
        :raises SwiftUnavailable: it does not arrive undamaged
        """
        body = Body(block, self.patience, hashing=self.verify)
        try:
            self.send_part(number, body.rewound, len(body), lambda: body.md5, self.verify)
        finally:
            body.release()

    def send_part(
        self,
        number: int,
        body: Callable[[], Any],
        size: int,
        md5: Callable[[], str],
        verify: bool = True,
    ) -> None:
        """Store a segment from a body, as often as it takes.

        :param number: from 1
        :param body: begins anew with what is sent
        :param size: bytes of it
        :param md5: returns that of all bytes once they were sent, in hexadecimal
        :param verify: compare it with what Swift says
        :raises SwiftUnavailable: it does not arrive undamaged
        """
        name = self.attempt(number)
        action = _("Storing the segment %s") % name

        def put() -> requests.Response:
            return self._request(
                "PUT",
                name,
                action=action,
                body=body,
                allow=(_DAMAGED,),
                check=lambda answer: check_stored(answer, md5() if verify else None, action),
            )

        answer = self.patience.call(
            lambda: self.into_container(put),
            # All others have been waited for.
            lambda exc: isinstance(exc, errors.ContainerMissingError),
        )
        etag = bare_etag(answer.headers.get("etag")).lower()
        self.stored(number, etag or md5(), size)

    def complete(self, size: int) -> None:
        """Write the manifest.

        :param size: bytes of the image
        :raises Duplicate: another upload was first
        :raises SwiftError: segments are missing
        """
        with self._lock:
            segments = [self._stored[number] for number in sorted(self._stored)]
        if sum(segment.size for segment in segments) != size:
            raise exceptions.BackendException(
                f"The segments of image {self.obj} do not have its {size} bytes"
            )
        manifest = large.cluster(self.client, self.patience).manifest(self.names, segments)
        more = _PER_SEGMENT * len(segments)
        with self.alone():
            try:
                self._put_manifest(manifest, size, segments, more)
            except errors.SwiftError as exc:
                if manifest is None or not errors.is_unsupported(exc):
                    raise
                LOG.warning("%s; it is stored as a dynamic large object", exc)
                self._put_manifest(None, size, segments, more)
        self.close()

    def _put_manifest(
        self, manifest: bytes | None, size: int, segments: list[large.Segment], more: float
    ) -> None:
        """Write a static manifest, or a dynamic one.

        :param manifest: the static one; None for a dynamic one
        :param size: bytes of the image
        :param segments: of the image
        :param more: seconds of silence that are borne besides those of the options
        """
        if manifest is None:
            # No ETag: radosgw compares it with that of the whole image. What Swift says of the data
            # comes from a listing, and is no proof.
            place = urllib.parse.quote(f"{self.container}/{self.names.prefix}")
            headers, query, expected = {"X-Object-Manifest": place}, None, Expected(size)
        else:
            headers, query = {}, {"multipart-manifest": "put"}
            expected = Expected(size, large.etag_of(segments))
        action = _("Writing the manifest of image %s") % self.obj

        def put(where_none: bool) -> None:
            try:
                self._request(
                    "PUT",
                    self.obj,
                    action=action,
                    query=query,
                    headers=self.headers(where_none, headers),
                    body=lambda: manifest or b"",
                    again=False,
                    more=more,
                )
            except errors.SwiftError as exc:
                if not large.lacks_segments(getattr(exc, "said", "")):
                    raise
                error = errors.SwiftUnavailable(str(exc))
                error.status = 400  # type: ignore[attr-defined]
            else:
                return
            raise error

        send = functools.partial(self.create, put, action)
        self.publish(lambda: self._in_container(send), expected)

    # -- the end

    def interrupt(self) -> None:
        """End the pauses of other threads; nothing more is sent."""
        self.patience.stop()

    def close(self) -> None:
        """Let go of what a finished upload does not need."""
        try:
            self.client.account.close()
        except exceptions.GlanceStoreException as exc:
            LOG.warning("After the upload of image %s: %s", self.obj, exc)

    def abort(self) -> None:
        """Remove everything that this upload has stored; what cannot be removed is logged."""
        # What has used up its time, or was interrupted, has nothing left for this.
        self.patience = self.client.patience(in_all=True)
        try:
            self.withdraw()
        except ERRORS as exc:
            LOG.error(
                "An upload has failed and may have left the object %s in the container %s: %s",
                self.obj,
                self.container,
                exc,
            )
        deleter.remove_objects(self.client, self.container, list(self._attempted.values()))
        if self._container_made:
            containers.remove_if_empty(self.client, self.container)
        self.close()


def check_stored(response: requests.Response, md5: str | None, action: str) -> None:
    """Compare what the server says of what it has stored.

    :param response: to a PUT
    :param md5: of what was sent, in hexadecimal; None: it is not known
    :param action: what was tried, for errors
    :raises DamagedOnTheWay: it is something else; another try may work
    """
    if response.status_code == _DAMAGED:
        raise DamagedOnTheWay(
            _("%(action)s: Swift says that the data was damaged on its way"), action=action
        )
    stored = bare_etag(response.headers.get("etag")).lower()
    if stored and md5 is not None and stored != md5:
        raise damaged(action, stored, md5)
