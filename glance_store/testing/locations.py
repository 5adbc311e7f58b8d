# SPDX-License-Identifier: Apache-2.0
"""Locations of the store, of other stores, and malformed ones."""

from __future__ import annotations

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches

# {s} is replaced by a scheme of the store.
HOSTILE = {
    "no-location": ["://", ":", "no location at all", " "],
    "next-to-nothing": ["{s}", "{s}:", "{s}:/", "{s}://", "{s}:///", "{s}:////", "{s}:// /"],
    "relative": ["{s}:relative", "{s}://.", "{s}://..", "{s}://../../../nowhere-at-all"],
    "traversal": [
        "{s}:///../../../nowhere-at-all",
        "{s}:///%2e%2e/%2e%2e/nowhere-at-all",
        "{s}:///..\\..\\nowhere-at-all",
    ],
    "brackets": ["{s}://[", "{s}://[::1/nowhere-at-all", "{s}://]/[", "{s}://[127.0.0.1]/x"],
    "separators": ["{s}://@", "{s}://:@:/", "{s}://?#", "{s}://{s}://", "{s}:///;?#@"],
    "zero-bytes": ["{s}://\0", "{s}:///nowhere\0at/all"],
    "no-character": ["{s}:///\ud800", "{s}://\udcff/nowhere/at-all"],
    "long": ["{s}:///" + "nowhere/" * 20000, "{s}://127.0.0.1:1/" + "x" * 100000],
}
FOREIGN = ["nosuch://nowhere/image", "gopher://127.0.0.1:1/image", "javascript:alert(1)", "//x/y"]


@touches("locations")
class Locations(Kit):
    """Every location is either valid, or refused with an exception of the library."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Create a test for each of the driver's `hostile_uris`."""
        if "hostile_uri" in metafunc.fixturenames:
            uris = metafunc.cls.hostile_uris if metafunc.cls is not None else ()
            metafunc.parametrize("hostile_uri", uris, ids=[ascii(uri)[:40] for uri in uris])

    def _check_refused(self, uri: str) -> None:
        """Fail unless a location is refused with an exception of the library."""
        try:
            self.locate(uri)
        except exceptions.BadStoreUri:
            return
        except Exception as exc:
            raise AssertionError(f"{ascii(uri)[:200]} raises {type(exc).__name__}") from exc
        for use in (self.get, self.size):
            try:
                use(uri)
            except exceptions.GlanceStoreException:
                continue
            except Exception as exc:
                shown = f"{type(exc).__name__}, which is not an exception of the library"
                raise AssertionError(f"{ascii(uri)[:200]} raises {shown}") from exc
            pytest.fail(f"{use.__name__} accepts the hostile location {ascii(uri)[:200]}")

    def test_location_round_trip(self) -> None:
        """Parsing a location and building it again gives the same text."""
        data = image(10)
        uri = self.place(data)
        written = self.locate(uri).get_store_uri()
        assert written == uri
        assert self.locate(written).get_store_uri() == uri
        check_bytes(self.read(written), data)

    @touches()
    @pytest.mark.parametrize("uris", HOSTILE.values(), ids=HOSTILE)
    def test_hostile_location(self, uris: list[str]) -> None:
        """A location that is malformed or points nowhere is refused."""
        for uri in uris:
            self._check_refused(uri.replace("{s}", self.store.get_schemes()[0]))

    @touches("account", "locations")
    def test_hostile_location_of_the_driver(self, hostile_uri: str) -> None:
        """A hostile location named by the driver author is refused."""
        self._check_refused(hostile_uri)

    @touches()
    def test_foreign_location(self) -> None:
        """A location with a scheme of another store is refused as malformed."""
        for uri in FOREIGN:
            with pytest.raises(exceptions.BadStoreUri):
                self.locate(uri)

    @touches("wire", "locations")
    @needs(WRITE)
    def test_neighbours_of_a_location(self) -> None:
        """A location that is almost that of an image deletes nothing."""
        data = image(self.block_size + 3)
        uri = self.add(self.new_id(), data)
        folder = uri.rpartition("/")[0]
        for other in (
            uri[:-1],
            uri + "x",
            uri + "/x",
            uri + "/..",
            uri + "\0",
            folder,
            folder + "/",
        ):
            with self.leaving_nothing(), pytest.raises(exceptions.GlanceStoreException):
                self.delete(other)
        check_bytes(self.read(uri), data)
