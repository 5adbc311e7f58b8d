# SPDX-License-Identifier: Apache-2.0
"""Reads the body of one response and enforces its exact length."""

from __future__ import annotations

import functools

import requests

from glance_store import exceptions
from glance_store._drivers._network import break_off
from glance_store._drivers.http.errors import TransferInterrupted, guarded
from glance_store._drivers.http.headers import is_chunked
from glance_store.i18n import _


class Body:
    """The body of a response as it arrives; `stop` is None if the server does not announce it."""

    def __init__(
        self, response: requests.Response, shown: str, start: int, stop: int | None
    ) -> None:
        self._response = response
        self._shown = shown
        self._stop = stop
        # Without chunks the length itself frames the body, and nothing can follow it.
        self._may_overrun = stop is not None and is_chunked(response.headers)
        self.position = start

    @property
    def exhausted(self) -> bool:
        """Whether all announced bytes have been read."""
        return self.position == self._stop

    def read(self, length: int) -> bytes:
        """Return up to `length` bytes; nothing at the end of a body of unknown length."""
        if self._stop is not None:
            length = min(length, self._stop - self.position)
        data = self._receive(length)
        if not data and self._stop is not None:
            raise TransferInterrupted(
                _(
                    "Reading %(uri)s broke off at byte %(position)d: the response ends there, "
                    "not at byte %(stop)d"
                ),
                uri=self._shown,
                position=self.position,
                stop=self._stop,
            )
        self.position += len(data)
        if self._may_overrun and self.exhausted and self._receive(1):
            raise exceptions.RemoteServiceUnavailable(
                _("The web server of %(uri)s sent more than the %(stop)d bytes it announced"),
                uri=self._shown,
                stop=self._stop,
            )
        return data

    def _receive(self, length: int) -> bytes:
        action = _("Reading %(uri)s broke off at byte %(position)d") % {
            "uri": self._shown,
            "position": self.position,
        }
        # Raw, not decoded: the stored bytes are the image.
        read = functools.partial(self._response.raw.read, length, decode_content=False)
        data: bytes = guarded(read, action, TransferInterrupted)
        return data

    def interrupt(self) -> None:
        """End a read in another thread."""
        break_off(self._response.raw)

    def close(self) -> None:
        """Close the response; its connection is reused only if the body was read to its end."""
        self._response.close()
