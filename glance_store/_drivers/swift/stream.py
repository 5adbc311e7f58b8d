# SPDX-License-Identifier: Apache-2.0
"""One PUT whose body arrives block by block, instead of being held in memory as a whole."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.body import slices
from glance_store._drivers.swift.publish import TAKEN, damaged, etag_of
from glance_store.i18n import _

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse as Response

    from glance_store._drivers.swift.client import Client

LOG = logging.getLogger(__name__)

# What ends a request that can be sent again, when its bytes are kept.
_CURABLE = (errors.SwiftUnavailable, errors.TokenRefusedError, exceptions.NotFound)


class _Cancelled(Exception):  # noqa: N818 - a signal and no error
    """The rest of the body will not come."""


class _Pipe:
    """Hands blocks to the thread that sends them, one at a time and without copying them.

    :param send: sends a request with the body that it is given, and returns the answer
    """

    def __init__(self, send: Callable[[Iterator[memoryview]], Response]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._block: memoryview | None = None
        self._ended = False
        self._cancelled = False
        self._over = False
        self._answer: Response | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="glance_store-swift", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        answer, error = None, None
        try:
            answer = self._send(self._body())
        except BaseException as exc:  # noqa: BLE001 - it is raised in the caller's thread
            error = exc
        with self._changed:
            self._answer, self._error, self._over, self._block = answer, error, True, None
            self._changed.notify_all()

    def _body(self) -> Iterator[memoryview]:
        while True:
            with self._changed:
                while self._block is None and not self._ended and not self._cancelled:
                    self._changed.wait()
                if self._cancelled:
                    raise _Cancelled
                if self._block is None:
                    return
                block = self._block
            yield from slices(block)
            # Asked for more: this one is on its way, and may be let go of.
            del block
            with self._changed:
                self._block = None
                self._changed.notify_all()

    def feed(self, block: memoryview) -> None:
        """Send a block; when this returns it is not needed any more.

        :raises Exception: what ended the request before its time
        """
        with self._changed:
            if not self._over:
                self._block = block
                self._changed.notify_all()
            while self._block is not None and not self._over:
                self._changed.wait()
            if self._over:
                self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._answer is not None and self._answer.status in TAKEN:
            raise errors.NameTakenError
        raise errors.SwiftUnavailable(_("Swift answered before it had all of the data"))

    def finish(self) -> Response:
        """End the body, and return the answer."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def cancel(self) -> None:
        """Break the request off; Swift drops what has arrived."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
        self._thread.join()


class StreamedPut:
    """An object whose bytes arrive piece by piece.

    :param client: of the account
    :param container: where it is stored
    :param obj: its name
    :param action: what is tried, for errors
    :param length: bytes of the object; None when unknown
    :param keep: hold the bytes for further tries
    :param headers: of the request
    """

    def __init__(
        self,
        client: Client,
        container: str,
        obj: str,
        action: str,
        length: int | None,
        keep: bool,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._place = (container, obj)
        self._action = action
        self._headers = dict(headers or {})
        self._kept: list[bytes] | None = [] if keep else None
        self._digest = hashlib.md5(usedforsecurity=False)
        self.size = 0
        if length is not None:
            self._headers["Content-Length"] = str(length)
        self._missing: exceptions.NotFound | None = None
        self._pipe: _Pipe | None = _Pipe(self._put)

    @property
    def etag(self) -> str:
        """MD5 of the bytes so far, in hexadecimal."""
        return self._digest.hexdigest()

    @property
    def repeatable(self) -> bool:
        """Whether the object can be sent once more."""
        return self._kept is not None

    def _put(self, body: Iterator[memoryview] | Callable[[], Iterator[memoryview]]) -> Response:
        return self._client.request(
            "PUT",
            *self._place,
            action=self._action,
            headers=self._headers,
            body=body,
            allow=TAKEN,
            retries=0,
        )

    def feed(self, block: memoryview) -> None:
        """Send a block.

        :param block: not needed any more when this returns
        :raises SwiftUnavailable: the request broke off, and the bytes were not kept
        :raises NameTakenError: there is an object of this name
        """
        self._digest.update(block)
        self.size += len(block)
        if self._kept is not None:
            self._kept.append(bytes(block))
        if self._pipe is None:
            return
        try:
            self._pipe.feed(block)
        except exceptions.GlanceStoreException as exc:
            self._pipe = None
            self._check_kept(exc)
            if not isinstance(exc, _CURABLE):
                raise
            LOG.warning("%s; it is sent again when all of it is there", exc)
            # What cures it is up to the caller, who learns of it when all of it is there.
            self._missing = exc if isinstance(exc, exceptions.NotFound) else None

    def send(self) -> Response:
        """End the object; called again, send all of it once more.

        :returns: the answer: a success, or one of `TAKEN`
        :raises DamagedError: something else was stored
        :raises SwiftUnavailable: there is no answer, or the bytes were not kept
        :raises NotFound: there is no container; another try may find one
        """
        # Let go of, since it refers to this object: what is kept would live on, as a circle.
        pipe, self._pipe = self._pipe, None
        missing, self._missing = self._missing, None
        if missing is not None:
            raise missing
        if pipe is None:
            return self._again()
        try:
            return self._checked(pipe.finish())
        except (errors.TokenRefusedError, exceptions.NotFound) as exc:
            self._check_kept(exc)
            if isinstance(exc, exceptions.NotFound):
                raise
        return self._again()

    def _check_kept(self, exc: exceptions.GlanceStoreException) -> None:
        """Raise the error that has ended the request, unless all of it can be sent again."""
        if self._kept is not None:
            return
        if not isinstance(exc, exceptions.NotFound):
            raise exc
        # The image that is not found is none that somebody has asked for.
        raise errors.SwiftError(
            _(
                "%(action)s: the container %(container)s was removed, and the data cannot be sent "
                "again: it was not kept"
            ),
            action=self._action,
            container=self._place[0],
        ) from exc

    def _again(self) -> Response:
        kept = self._kept
        if kept is None:
            raise errors.SwiftUnavailable(
                _("%(action)s: it broke off and cannot be sent again: its data was not kept"),
                action=self._action,
            )
        self._headers["Content-Length"] = str(self.size)
        return self._checked(
            self._put(lambda: (part for block in kept for part in slices(memoryview(block))))
        )

    def _checked(self, response: Response) -> Response:
        if response.status not in TAKEN:
            check_etag(response, self.etag, self._action)
        return response

    def cancel(self) -> None:
        """Break the request off, if one is under way."""
        if self._pipe is not None:
            self._pipe.cancel()
        self._kept = None


def check_etag(response: Response, etag: str, action: str) -> None:
    """Check what the server says it has stored.

    :param response: to a PUT
    :param etag: MD5 of what was sent, in hexadecimal
    :param action: what was tried, for errors
    :raises DamagedError: it is something else; another try may work
    """
    stored = etag_of(response)
    if stored and stored != etag:
        raise damaged(action, stored, etag)
