# SPDX-License-Identifier: Apache-2.0
"""One image being stored: an object, or segments and the manifest that joins them."""

from __future__ import annotations

import functools
import logging
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from glance_store import exceptions
from glance_store._drivers._objects.body import RequestBody
from glance_store._drivers._objects.claim import Claim, Expected, Found, damaged
from glance_store._drivers._objects.errors import ERRORS, DamagedInTransit
from glance_store._drivers.swift import containers, deleter, errors, large
from glance_store.i18n import _

if TYPE_CHECKING:
    import requests

    from glance_store._drivers.swift.client import Client

_T = TypeVar("_T")

LOG = logging.getLogger(__name__)

# Seconds that the cluster may take to check one segment of a manifest.
_PER_SEGMENT = 0.5
# Seconds to wait for all segments in the listing, from which Swift adds up an image's bytes.
_LISTING = 20.0
# The data does not match its ETag.
_DAMAGED = 422
# What Swift answers to a PUT; the second is that of some gateways.
_CREATED = (201, 202)


class Upload(Claim):
    """An image being stored; `multipart.MultipartWriter` drives it.

    `ensure` creates the container if it is gone, and tells whether it did so for this image. With
    `verify`, the MD5 of each segment is compared with what Swift reports.
    """

    def __init__(
        self,
        client: Client,
        container: str,
        obj: str,
        ensure: Callable[[], bool],
        verify: bool,
        uri: str = "",
    ) -> None:
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        identity = client.account.url, container, obj
        super().__init__(identity, obj, client.patience(), client.condition)
        self.client = client
        self.container = container
        self.obj = obj
        self.names = large.Names(container, obj, self.mark)
        self.verify = verify
        self._ensure = ensure
        self._container_made = False
        # Names that the cluster may know, whatever happened to the requests.
        self._attempted: dict[int, str] = {}
        self._stored: dict[int, large.Segment] = {}

    # -- the name

    def find(self) -> Found | None:
        """Return the object in place, or None; an unfinished PUT does not count."""
        action = _("Looking for image %s") % self.obj
        response = self.client.head(self.container, self.obj, action=action, patience=self.patience)
        if response is None:
            return None
        about = large.About(response.headers)
        return Found(about.mark, about.etag, about.size)

    def remove(self, found: Found) -> None:
        """Remove the object; of a large object, only the manifest."""
        action = _("Removing the unfinished image %s") % self.obj
        self.request("DELETE", self.obj, action=action, allow=(404,))

    def settle(self, found: Found, expected: Expected) -> None:
        """Wait until Swift counts all bytes of the image; raise SwiftUnavailable if it does not.

        Swift adds up the bytes of a dynamic large object from a listing, which can lag. Until it is
        complete, readers would get only a part of the image.
        """
        if expected.etag is not None and found.etag == expected.etag:
            # The size may be wrong: some proxies say 0 in every response to HEAD.
            return
        tries = self.patience.tries(_LISTING)
        while found.size not in (None, expected.size):
            error = errors.SwiftUnavailable(
                _(
                    "Storing image %(image)s: Swift finds %(found)d of its %(size)d bytes: the "
                    "listing of the container %(container)s lags behind, or is too long"
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
                    _("Image %(image)s was removed while it was being stored"),
                    image=self.obj,
                )
            found = latest

    def request(self, method: str, obj: str, **more: Any) -> requests.Response:
        """Send a request about an object in the container of the image."""
        return self.client.request(method, self.container, obj, patience=self.patience, **more)

    def headers(self, where_none: bool, more: dict[str, str] | None = None) -> dict[str, str]:
        """Return the headers of a request that creates the object."""
        return {
            "Content-Type": "application/octet-stream",
            **({"If-None-Match": "*"} if where_none else {}),
            large.MARK: self.mark,
            **(more or {}),
        }

    def create(self, put: Callable[[bool], _T], action: str) -> _T:
        """Create the object where there is none."""
        return self.if_free(put, errors.is_unknown_feature, action)

    # -- the container

    def ensure_container(self) -> None:
        """Create the container if it is missing and the options allow that."""
        if self._ensure():
            self._container_made = True

    def into_container(self, send: Callable[[], _T], again: bool = True) -> _T:
        """Send something; with `again`, create a missing container and send again.

        A failed upload of the same id may have removed the container when it was empty.
        """
        try:
            return send()
        except exceptions.NotFound:
            # Do not report this as a missing image: the caller is storing it.
            error = self.container_removed()
        if not again:
            raise error
        self.ensure_container()
        return self.into_container(send, again=False)

    def container_removed(self) -> errors.ContainerMissingError:
        """Return the error for a container that is missing."""
        error = errors.ContainerMissingError(
            _("The container %(container)s was removed while image %(image)s was being stored"),
            container=self.container,
            image=self.obj,
        )
        error.status = 404  # type: ignore[attr-defined]
        return error

    # -- sending

    def put(
        self,
        name: str,
        action: str,
        body: Callable[[], Any],
        md5: Callable[[], str | None],
        **more: Any,
    ) -> requests.Response:
        """Store an object.

        Each call of `body` begins the data again; `md5` returns their MD5 once they were sent, or
        None if it is not compared.
        """
        return self.request(
            "PUT",
            name,
            action=action,
            body=body,
            allow=(_DAMAGED,),
            check=lambda answer: check_stored(answer, md5(), action),
            **more,
        )

    def put_whole(self, block: memoryview | bytes, md5: str | None) -> None:
        """Store the image as one object."""
        body = RequestBody(block, self.patience)
        # With an ETag, Swift itself refuses data that changed in transit.
        etag = md5 or body.md5
        action = _("Storing image %s") % self.obj

        def put(where_none: bool) -> None:
            headers = self.headers(where_none, {"ETag": etag})
            self.put(self.obj, action, body.rewound, lambda: etag, headers=headers, retry=False)

        try:
            with self.alone():
                send = functools.partial(self.create, put, action)
                self.publish(lambda: self.into_container(send), Expected(len(body), etag))
        finally:
            body.release()
        self.close()

    def begin(self) -> None:
        """Do nothing: segments need no preparation."""

    def attempt(self, number: int) -> str:
        """Return the name of a segment that is about to be sent; the first is number 1."""
        return self._attempted.setdefault(number, self.names.of(number))

    def stored(self, number: int, etag: str, size: int) -> None:
        """Record that a segment is stored; `etag` is its MD5 in hexadecimal."""
        self._stored[number] = large.Segment(self._attempted[number], etag, size)

    def put_part(self, number: int, block: memoryview) -> None:
        """Store a segment, as often as needed."""
        name = self.attempt(number)
        action = _("Storing the segment %s") % name
        body = RequestBody(block, self.patience, hashing=self.verify)

        def put() -> requests.Response:
            return self.put(name, action, body.rewound, lambda: body.md5 if self.verify else None)

        try:
            answer = self.patience.call(
                lambda: self.into_container(put),
                # The client has already retried all other errors.
                lambda exc: isinstance(exc, errors.ContainerMissingError),
            )
            self.stored(number, large.etag_in(answer.headers) or body.md5, len(body))
        finally:
            body.release()

    def commit(self, size: int) -> None:
        """Write the manifest of a copy."""
        self.complete(size)

    def complete(self, size: int) -> None:
        """Write the manifest."""
        segments = [self._stored[number] for number in sorted(self._stored)]
        if sum(segment.size for segment in segments) != size:
            raise exceptions.BackendException(
                f"The segments of image {self.obj} do not have its {size} bytes"
            )
        manifest = large.cluster_info(self.client, self.patience).manifest(self.names, segments)
        with self.alone():
            try:
                self._put_manifest(manifest, size, segments)
            except errors.SwiftError as exc:
                if manifest is None or not errors.is_unsupported(exc):
                    raise
                LOG.warning("%s; it is stored as a dynamic large object", exc)
                self._put_manifest(None, size, segments)
        self.close()

    def _put_manifest(
        self, manifest: bytes | None, size: int, segments: list[large.Segment]
    ) -> None:
        """Write a static manifest, or a dynamic one if `manifest` is None."""
        if manifest is None:
            # No ETag: radosgw compares it with that of the whole image, and what Swift reports
            # comes from a listing and proves nothing.
            manifest_prefix = urllib.parse.quote(f"{self.container}/{self.names.prefix}")
            headers = {"X-Object-Manifest": manifest_prefix, large.SIZE: str(size)}
            query, expected = None, Expected(size)
        else:
            headers, query = {}, {"multipart-manifest": "put"}
            expected = Expected(size, large.etag_of(segments))
        action = _("Writing the manifest of image %s") % self.obj

        def put(where_none: bool) -> None:
            self.put(
                self.obj,
                action,
                lambda: manifest or b"",
                lambda: None,
                query=query,
                headers=self.headers(where_none, headers),
                retry=False,
                extra_timeout=_PER_SEGMENT * len(segments),
            )

        send = functools.partial(self.create, put, action)
        self.publish(lambda: self.into_container(send, again=False), expected)

    # -- the end

    def interrupt(self) -> None:
        """End the pauses of other threads; nothing more is sent."""
        self.patience.stop()

    def close(self) -> None:
        """Give back what a finished upload no longer needs."""
        try:
            self.client.account.close()
        except exceptions.GlanceStoreException as exc:
            LOG.warning("After the upload of image %s: %s", self.obj, exc)

    def abort(self) -> None:
        """Remove everything this upload stored; log what cannot be removed."""
        # The old patience may be used up, or stopped.
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
        attempted = self._attempted
        gone = deleter.remove_objects(self.client, self.container, list(attempted.values()))
        unclear = [attempted[number] for number in attempted.keys() - self._stored.keys()]
        if gone and unclear:
            # A busy server may not have begun with a request that was broken off before.
            deleter.remove_objects(self.client, self.container, unclear)
        if self._container_made:
            containers.remove_if_empty(self.client, self.container)
        self.close()


def check_stored(response: requests.Response, md5: str | None, action: str) -> None:
    """Raise an error if the response to a PUT does not show that the data sent was stored.

    NoResult: it is not from Swift; DamagedInTransit: other data was stored.
    """
    if response.status_code == _DAMAGED:
        raise DamagedInTransit(
            _("%(action)s: Swift reports that the data was damaged in transit"), action=action
        )
    stored = large.etag_in(response.headers)
    if not stored and response.status_code not in _CREATED:
        raise errors.foreign(response, action)
    if stored and md5 is not None and stored != md5:
        raise damaged(action, stored, md5)
