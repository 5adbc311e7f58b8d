# SPDX-License-Identifier: Apache-2.0
"""Secrets stay secret.

Every test of the kit logs at level DEBUG, and fails if a log line, an error or a repr contains a
secret. The tests here look where secrets leak most often.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import Source, SourceError, image
from glance_store.testing.kit import WRITE, Kit, needs, touches


def _with_authority(uri: str, before: str = "", after: str = "") -> str:
    """Return a location with text added before and after its authority."""
    start, slashes, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{start}{slashes}{before}{authority}{after}{slash}{path}"


MALFORMED: dict[str, Callable[[str], str]] = {
    "one-slash": lambda uri: uri.replace("://", ":/", 1),
    "no-slash": lambda uri: uri.replace("://", ":", 1),
    "foreign-scheme": lambda uri: "nosuch" + uri[uri.index(":") :],
    "scheme-in-capitals": lambda uri: uri[: uri.index(":")].upper() + uri[uri.index(":") :],
    "two-schemes": lambda uri: uri[: uri.index(":")] + "://" + uri,
    "port-of-letters": lambda uri: _with_authority(uri, after=":nonsense"),
    "huge-port": lambda uri: _with_authority(uri, after="99999999"),
    "open-bracket": lambda uri: _with_authority(uri, after="["),
    "another-at": lambda uri: _with_authority(uri, before="x@"),
    "another-colon": lambda uri: _with_authority(uri, before="x:y:"),
    "space": lambda uri: _with_authority(uri, after=" x"),
    "no-path": lambda uri: "/".join(uri.split("/")[:3]),
    "zero-byte": lambda uri: uri + "\0",
    "not-there": lambda uri: uri + "-nothing-here",
}


@touches("account", "locations")
class Secrets(Kit):
    """No log line, error or repr shows passwords, keys or tokens."""

    @touches("wire", "account", "locations")
    @needs("secrets")
    def test_use_shows_no_secret(self) -> None:
        """Reading an image, or looking for a missing one, shows no secret."""
        uri = self.place(image(2 * self.block_size + 3))
        self.read(uri, self.new_store())
        self.size(uri)
        self.check_missing(self.missing_uri())
        self.watch.check()

    @touches("wire", "account", "locations")
    @needs(WRITE, "secrets")
    def test_upload_shows_no_secret(self) -> None:
        """Uploads, failed uploads and deletions show no secret."""
        image_id = self.new_id()
        data = image(2 * self.block_size + 3)
        uri = self.add(image_id, data)
        with pytest.raises(exceptions.Duplicate):
            self.add(image_id, data)
        with pytest.raises(exceptions.Invalid):
            self.add(self.new_id(), data, len(data) - 1)
        with pytest.raises(SourceError):
            self.add(self.new_id(), Source(data, end=SourceError("gone")))
        self.delete(uri)
        with pytest.raises(exceptions.NotFound):
            self.delete(uri)
        self.watch.check()

    @needs("secrets")
    def test_refusal_shows_no_secret(self) -> None:
        """The errors of a read-only store show no secret."""
        uri = self.place(image(10))
        store = self.new_store()
        store.disable_writes("disabled by the conformance kit")
        with pytest.raises(exceptions.StoreAddDisabled):
            self.call(store.add, self.new_id(), io.BytesIO(b""), 0, "sha256")
        with pytest.raises(exceptions.StoreDeleteNotSupported):
            self.delete(uri, store)
        self.watch.check()

    @needs("secrets")
    def test_representations_show_no_secret(self) -> None:
        """Printing a store, a location, a download or a reader shows no secret."""
        uri = self.place(image(self.block_size + 3))
        location = self.locate(uri)
        for shown in (self.store, location, location.store_location):
            self.watch.note_object(shown)
        chunks, _size = self.get(uri)
        with contextlib.closing(chunks):
            self.watch.note_object(chunks)
        with contextlib.suppress(NotImplementedError):
            reader = self.call(self.store.open_reader, location)
            self.watch.note_object(reader)
            reader.close()
        self.watch.check()

    @needs(WRITE, "secrets")
    def test_writer_shows_no_secret(self) -> None:
        """Printing a writer shows no secret."""
        try:
            writer = self.call(self.store.open_writer, self.new_id(), 10)
        except NotImplementedError:
            pytest.skip("the driver has its own add()")
        self.watch.note_object(writer)
        self.call(writer.abort)
        self.watch.check()

    @needs("secrets")
    def test_malformed_location_shows_no_secret(self) -> None:
        """Using a mistyped location shows no secret."""
        uri = self.place(image(10))
        for spoil in MALFORMED.values():
            for use in (self.get, self.size):
                with contextlib.suppress(exceptions.GlanceStoreException):
                    use(spoil(uri))
        self.watch.check()
