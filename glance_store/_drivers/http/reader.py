# SPDX-License-Identifier: Apache-2.0
"""Reads a file from a web server and never mixes bytes of two versions.

A download is one request as long as nothing breaks. When the connection does break, the next read
asks for the rest on condition (``If-Range``) that the file has not changed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import requests

from glance_store import exceptions
from glance_store._drivers.http import headers as parsing
from glance_store._drivers.http.body import Body
from glance_store._drivers.http.client import Answer, Client, refusal
from glance_store._drivers.http.errors import TransferInterrupted
from glance_store._drivers.http.headers import Version
from glance_store._drivers.http.location import StoreLocation
from glance_store.i18n import _
from glance_store.transfer.interface import Extent
from glance_store.transfer.retry import PASSING

LOG = logging.getLogger(__name__)

# 203: a proxy changed something that it may change.
COMPLETE = (200, 203)
_PARTIAL = 206
_UNSATISFIABLE = 416


class HTTPReader:
    """An image on a web server; the constructor sends the first request.

    Requests ask for no more than `length` bytes from `first` on; None asks for all.
    """

    def __init__(
        self, client: Client, location: StoreLocation, first: int = 0, length: int | None = None
    ) -> None:
        self._client = client
        self._location = location
        self._length = length
        self._stop = None if length is None else first + length
        self._lock = threading.Lock()
        self._body: Body | None = None
        self._size: int | None = None
        self._end: int | None = None  # the end of the image, once it is known
        self._version: Version | None = None
        self._server = location  # where the version came from; may be one of several mirrors
        self._ranges_refused = False
        self._delivered = False
        self._interrupted = False
        self._open(first)

    @property
    def size(self) -> int | None:
        """Bytes of the image; None when the server does not say."""
        return self._size

    @property
    def version(self) -> str | None:
        """The file's ETag, if it is a strong one."""
        etag = self._version.etag if self._version is not None else None
        return None if etag is None or etag.startswith("W/") else etag

    @property
    def concurrency(self) -> int:
        """One: a single connection is as fast as the server sends."""
        return 1

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Report one extent of data; HTTP knows no holes."""
        yield Extent(offset, length, True)

    def interrupt(self) -> None:
        """End a read in another thread."""
        self._interrupted = True
        body = self._body
        if body is not None:
            body.interrupt()

    def close(self) -> None:
        """End the transfer; a connection with unread data is closed."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes; cheap where the previous read ended.

        After TransferInterrupted another call resumes; after RemoteServiceUnavailable none can.
        """
        with self._lock:
            if self._end is not None and offset >= self._end:
                return b""
            if self._body is not None and (self._body.position != offset or self._body.exhausted):
                self.close()
            if self._body is None:
                self._reopen(offset)
            return b"" if self._body is None else self._read(self._body, length)

    def _read(self, body: Body, length: int) -> bytes:
        position = body.position
        try:
            data = body.read(length)
        except TransferInterrupted as exc:
            self.close()
            obstacle = self._obstacle()
            if obstacle is None:
                raise
            raise exceptions.RemoteServiceUnavailable(
                _("%(problem)s; it cannot be resumed: %(obstacle)s"),
                problem=exc.msg,
                obstacle=obstacle,
            ) from exc
        except BaseException:
            self.close()
            raise
        if data:
            self._delivered = True
        else:
            # Only a body of unknown length ends like this. Chunks prove it complete; the end of the
            # connection proves nothing.
            self._end = position
        return data

    def _obstacle(self) -> str | None:
        """Return why a transfer cannot be resumed; None if it can, or can start over."""
        if not self._delivered:
            return None
        if self._ranges_refused:
            return str(_("the server does not send parts of a file (Accept-Ranges: none)"))
        if self._version is None or self._version.validator is None:
            return str(
                _("the server sends neither an ETag nor Last-Modified to identify the version")
            )
        return None

    def _reopen(self, offset: int) -> None:
        if self._interrupted:
            raise exceptions.BackendException("The download was closed while it was being read")
        obstacle = self._obstacle()
        if obstacle is not None:
            raise exceptions.RemoteServiceUnavailable(
                _("Cannot resume reading %(uri)s at byte %(offset)d: %(obstacle)s"),
                uri=self._location.shown,
                offset=offset,
                obstacle=obstacle,
            )
        self._open(offset, again=True)

    def _open(self, offset: int, again: bool = False) -> None:
        """Request the image from an offset on."""
        asked: dict[str, str] = {}
        if offset or self._stop is not None:
            last = "" if self._stop is None or self._stop <= offset else str(self._stop - 1)
            asked["Range"] = f"bytes={offset}-{last}"
        if self._delivered and self._version is not None and self._version.validator is not None:
            asked["Range"] = asked.get("Range", "bytes=0-")
            asked["If-Range"] = self._version.validator
        action = (_("Reading %(uri)s at byte %(offset)d") if again else _("Reading %(uri)s")) % {
            "uri": self._location.shown,
            "offset": offset,
        }
        unreachable = TransferInterrupted if again else exceptions.RemoteServiceUnavailable

        def fetch(headers: dict[str, str], start: StoreLocation | None = None) -> Answer:
            return self._client.fetch("GET", self._location, headers, action, unreachable, start)

        answer = fetch(asked)
        if "If-Range" in asked:
            answer = self._of_same_file(answer, offset, asked, fetch)
        try:
            self._body = self._judge(answer, offset, asked)
        except BaseException:
            answer.response.close()
            raise
        if self._body is None:
            answer.response.close()

    def _of_same_file(
        self,
        answer: Answer,
        offset: int,
        asked: dict[str, str],
        fetch: Callable[[dict[str, str], StoreLocation | None], Answer],
    ) -> Answer:
        """Return a better response if a redirect led to another mirror than before.

        Its ETag for the same file may differ. The same date is enough; without one, only the server
        that the download began with can continue it.
        """
        known, version = self._version, Version.of(answer.response.headers)
        status = answer.response.status_code
        if (
            known is None
            or not known.differs(version)
            or not self._is_mirror(answer)
            or status not in (_PARTIAL, *COMPLETE)
        ):
            return answer
        if known.differs(version, mirrored=True):
            answer.response.close()
            answer = fetch(asked, self._server)
            if answer.response.status_code not in (_PARTIAL, *PASSING):
                answer.response.close()
                raise self._changed(offset)
        elif status != _PARTIAL:
            answer.response.close()
            answer = fetch({**asked, "If-Range": str(version.modified)}, answer.server)
        return answer

    def _is_mirror(self, answer: Answer) -> bool:
        """Tell whether a response came from elsewhere; a signed URL may change its query alone."""
        first, other = self._server, answer.server
        return (first.origin, first.path, first.params) != (other.origin, other.path, other.params)

    def _differs(self, answer: Answer) -> bool:
        """Tell whether a response is known to be about another version than the first one."""
        version = Version.of(answer.response.headers)
        return self._version is not None and self._version.differs(
            version, mirrored=self._is_mirror(answer)
        )

    def _judge(self, answer: Answer, offset: int, asked: dict[str, str]) -> Body | None:
        """Return the body of a response; None when the image has nothing at the offset."""
        response = answer.response
        status = response.status_code
        try:
            # Some proxies send the whole file with status 206, whatever was requested.
            if status == _PARTIAL and ("Range" in asked or parsing.is_whole(response.headers)):
                return self._partial(answer, offset)
            if status == _UNSATISFIABLE and "Range" in asked:
                self._nothing_there(response, offset)
                return None
            if status in COMPLETE and parsing.part_sent(response.headers) is not None:
                # Some servers send a part of the file with status 200.
                return self._partial(answer, offset)
            if status in COMPLETE:
                return self._complete(answer, offset, asked)
        except ValueError as exc:
            raise self._broken(_("its header %s is missing or wrong") % exc) from None
        raise refusal(response, self._location)

    def _partial(self, answer: Answer, offset: int) -> Body:
        part = parsing.content_range(answer.response.headers)
        # The part may be shorter or longer than requested: a missing rest is requested again, and a
        # surplus is not read.
        if part.start != offset:
            raise self._broken(_("it sent a different part of the file than requested"))
        self._remember(part.total, answer, offset)
        return self._body_of(answer.response, offset, part.stop)

    def _nothing_there(self, response: requests.Response, offset: int) -> None:
        total = parsing.unsatisfied_total(response.headers)
        if total is not None and total > offset:
            raise self._broken(_("it refused a part of the file that exists"))
        if self._end is not None and self._end > offset:
            raise self._changed(offset)
        if total is not None:
            self._size = total if self._size is None else self._size
        self._end = offset

    def _complete(self, answer: Answer, offset: int, asked: dict[str, str]) -> Body:
        if "If-Range" in asked:
            if self._differs(answer):
                raise self._changed(offset)
            raise exceptions.RemoteServiceUnavailable(
                _(
                    "Reading %(uri)s broke off at byte %(offset)d and cannot be resumed: the "
                    "server only sends whole files"
                ),
                uri=self._location.shown,
                offset=offset,
            )
        if offset:
            raise exceptions.StoreRandomGetNotSupported(
                _(
                    "The web server of %(uri)s cannot send part of a file: cannot read at "
                    "offset %(offset)s, length %(chunk_size)s; read the whole image"
                ),
                uri=self._location.shown,
                offset=offset,
                chunk_size=self._length,
            )
        length = parsing.content_length(answer.response.headers)
        self._remember(length, answer, offset)
        return self._body_of(answer.response, 0, length)

    def _body_of(self, response: requests.Response, start: int, stop: int | None) -> Body:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            # A file stored compressed is often declared as encoded: then the stored bytes are the
            # image. A server that compresses although told not to shows up here too.
            LOG.warning(
                "The web server declares the image at %s as encoded (%s): its bytes are read as "
                "sent, not decoded",
                self._location.shown,
                encoding,
            )
        self._ranges_refused = response.headers.get("Accept-Ranges", "").strip().lower() == "none"
        return Body(response, self._location.shown, start, stop)

    def _remember(self, size: int | None, answer: Answer, offset: int) -> None:
        """Learn size and version from the first response, and check later ones against them."""
        if self._version is None:
            self._version, self._server = Version.of(answer.response.headers), answer.server
        elif self._differs(answer):
            raise self._changed(offset)
        if self._size is None:
            self._size = size
        elif size is not None and size != self._size:
            raise self._changed(offset)
        self._end = self._size

    def _changed(self, offset: int) -> exceptions.RemoteServiceUnavailable:
        return exceptions.RemoteServiceUnavailable(
            _(
                "The image at %(uri)s changed on the web server while it was being read, at "
                "byte %(offset)d: discard what was read so far and start the download again"
            ),
            uri=self._location.shown,
            offset=offset,
        )

    def _broken(self, problem: str) -> exceptions.RemoteServiceUnavailable:
        return exceptions.RemoteServiceUnavailable(
            _("The web server of %(uri)s does not follow the HTTP protocol: %(problem)s"),
            uri=self._location.shown,
            problem=problem,
        )
