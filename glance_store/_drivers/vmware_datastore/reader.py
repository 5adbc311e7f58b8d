# SPDX-License-Identifier: Apache-2.0
"""Reads one image by ranges, and never mixes two versions of the file."""

from __future__ import annotations

from collections.abc import Mapping

import requests

from glance_store import exceptions
from glance_store._drivers import _network
from glance_store._drivers._objects.ranges import Part, RangeReader, bare_etag, part_of
from glance_store._drivers.vmware_datastore import errors
from glance_store._drivers.vmware_datastore.files import File, Files
from glance_store.i18n import _
from glance_store.transfer.memory import Memory
from glance_store.transfer.multipart import MIB
from glance_store.transfer.retry import Patience

RANGE_SIZE = 8 * MIB
_CONCURRENCY = 4


class DatastoreReader(RangeReader):
    """A file in a datastore; the constructor asks for its size.

    Raises NotFound if there is no such file, and DatastoreUnavailable if the server is unreachable.
    """

    def __init__(self, files: Files, file: File, memory: Memory, patience: Patience) -> None:
        super().__init__(_CONCURRENCY, RANGE_SIZE, memory)
        self._files = files
        self._file = file
        action = _("Looking for %s") % file.name
        self.size, about = patience.call(lambda: files.size(file, action))
        self._version = _version_of(about)
        # The ETag; the other half, the time, has a resolution of only a second.
        self.version = self._version[0] or None

    def _ask(self, offset: int, length: int) -> tuple[_Body, Part]:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
        response = self._files.request("GET", self._file, self._action(offset), wanted)
        try:
            self._check_version(response.headers, offset)
            part = part_of(
                response.status_code,
                response.headers,
                offset,
                length,
                self.size,
                self._action(offset),
            )
        except BaseException:
            response.close()
            raise
        return _Body(response, self._action(offset)), part

    def _check_version(self, headers: Mapping[str, str], offset: int) -> None:
        for known, found in zip(self._version, _version_of(headers), strict=True):
            if known and found and known != found:
                raise exceptions.RemoteServiceUnavailable(
                    _(
                        "The image %(name)s was replaced while it was being read, at byte "
                        "%(offset)d: discard what was read so far and start the download again"
                    ),
                    name=self._file.name,
                    offset=offset,
                )

    def _action(self, offset: int) -> str:
        return str(
            _("Reading %(name)s at byte %(offset)d") % {"name": self._file.name, "offset": offset}
        )


def _version_of(headers: Mapping[str, str]) -> tuple[str, str]:
    return bare_etag(headers.get("ETag")), headers.get("Last-Modified", "")


class _Body:
    """The body of an answer, with translated errors."""

    def __init__(self, response: requests.Response, action: str) -> None:
        self._response = response
        self._action = action

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes."""
        raw = self._response.raw
        return errors.guarded(lambda: bytes(raw.read(length, decode_content=False)), self._action)

    def interrupt(self) -> None:
        """End a read in another thread."""
        _network.break_off(self._response.raw)

    def close(self) -> None:
        """Drop what was not read."""
        self._response.close()
