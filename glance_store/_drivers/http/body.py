# SPDX-License-Identifier: Apache-2.0
"""The body of one answer, not a byte short and not one too long."""

from __future__ import annotations

import functools

import requests

from glance_store import exceptions
from glance_store._drivers._network import break_off
from glance_store._drivers.http.errors import TransferInterrupted, guarded
from glance_store._drivers.http.headers import is_chunked
from glance_store.i18n import _


class Body:
    """Bytes of a file, as they arrive.

    :param response: the answer; closed with this object
    :param shown: the location, for errors
    :param start: offset of the first byte in the file
    :param stop: offset after the last byte; None when the server does not say
    """

    def __init__(
        self, response: requests.Response, shown: str, start: int, stop: int | None
    ) -> None:
        self._response = response
        self._shown = shown
        self._stop = stop
        # Elsewhere the length of the body is the framing, and nothing can follow.
        self._may_overrun = stop is not None and is_chunked(response.headers)
        self.position = start

    @property
    def exhausted(self) -> bool:
        """Whether all bytes that the server announced have been read."""
        return self.position == self._stop

    def read(self, length: int) -> bytes:
        """Read on.

        :param length: bytes at most
        :returns: the bytes; none at the end of a body of unknown length
        :raises TransferInterrupted: the connection broke, or ended too early
        :raises RemoteServiceUnavailable: more bytes came than were announced
        """
        if self._stop is not None:
            length = min(length, self._stop - self.position)
        data = self._receive(length)
        if not data and self._stop is not None:
            raise TransferInterrupted(
                _(
                    "Reading %(uri)s broke off at byte %(position)d: the answer ends there, "
                    "not at byte %(stop)d"
                ),
                uri=self._shown,
                position=self.position,
                stop=self._stop,
            )
        self.position += len(data)
        if self._may_overrun and self.exhausted and self._receive(1):
            raise exceptions.RemoteServiceUnavailable(
                _("The web server of %(uri)s sent more than the %(stop)d bytes that it announced"),
                uri=self._shown,
                stop=self._stop,
            )
        return data

    def _receive(self, length: int) -> bytes:
        action = _("Reading %(uri)s broke off at byte %(position)d") % {
            "uri": self._shown,
            "position": self.position,
        }
        # Raw and not decoded: the stored bytes are the image.
        read = functools.partial(self._response.raw.read, length, decode_content=False)
        data: bytes = guarded(read, action, TransferInterrupted)
        return data

    def interrupt(self) -> None:
        """End a read in another thread."""
        break_off(self._response.raw)

    def close(self) -> None:
        """Let go of the answer; its connection is closed unless the body was read to its end."""
        self._response.close()
