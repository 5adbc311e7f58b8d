# SPDX-License-Identifier: Apache-2.0
"""Copies within the backend, for drivers that implement `Store.copy_from`."""

from __future__ import annotations

from typing import Any

import pytest

from glance_store import exceptions
from glance_store.driver import Store
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches


@touches("layout", "account", "wire")
class Copies(Kit):
    """A copy is all or nothing, and never overwrites another image."""

    @property
    def copies_within(self) -> bool:
        """Whether the driver implements `copy_from`."""
        return type(self.store).copy_from is not Store.copy_from

    def copy(self, uri: str, image_id: str, progress: Any = None) -> tuple[str, int] | None:
        """Copy an image from another store on the same backend.

        :param uri: location of the image
        :param image_id: id of the copy
        :param progress: as for `Store.copy_from`
        :returns: location and size of the copy; None if the backend cannot copy this image
        """
        source = self.new_store()
        place = self.locate(uri, source)
        found = self.call(
            self.store.copy_from, source, place, image_id, progress or (lambda _length: None)
        )
        return None if found is None else found[:2]

    @needs(WRITE, "copies_within")
    def test_copies(self) -> None:
        """A copy is complete and does not need its source; progress adds up to its size."""
        for size in (0, 3 * self.block_size + 5):
            data = image(size)
            uri, image_id = self.place(data), self.new_id()
            steps: list[int] = []
            made = self.copy(uri, image_id, steps.append)
            if made is not None:
                assert made[1] == sum(steps) == size
                with self.leaving_nothing():
                    check_bytes(self.read(uri), data)
                self.delete(uri)
                assert self.size(made[0]) == size
                check_bytes(self.read(made[0]), data)
                self.delete(made[0])
                self.check_missing(made[0])

    @needs(WRITE, "copies_within")
    def test_no_image_is_overwritten(self) -> None:
        """A copy overwrites neither an existing image nor one that is stored meanwhile."""
        data, other = image(3 * self.block_size), image(self.block_size + 1, seed=2)
        uri, image_id = self.place(data), self.new_id()
        there = self.add(image_id, other)
        with self.leaving_nothing(), pytest.raises(exceptions.Duplicate):
            if self.copy(uri, image_id) is None:
                pytest.skip("the backend cannot copy this image")
        assert self.read(there) == other
        self._rival(uri, data, other)

    def _rival(self, uri: str, data: bytes, other: bytes) -> None:
        image_id = self.new_id()
        uris: list[str] = []

        def add(_length: int) -> None:
            if not uris:
                uris.append("refused")
                uris[0] = self.add(image_id, other)

        try:
            made = self.copy(uri, image_id, add)
        except exceptions.Duplicate:
            # The upload was first; the copy got Duplicate.
            made = None
        if uris and uris[0] != "refused":
            assert made is None
            assert self.read(uris[0]) == other
        elif made is not None:
            assert self.read(made[0]) == data

    @needs(WRITE, "copies_within")
    def test_what_ends_a_copy(self) -> None:
        """A copy ended by its progress callback leaves nothing, and its id is free."""

        class EndedError(Exception):
            pass

        def end(_length: int) -> None:
            raise EndedError

        uri, image_id = self.place(image(3 * self.block_size)), self.new_id()
        with self.leaving_nothing(), pytest.raises(EndedError):
            if self.copy(uri, image_id, end) is None:
                pytest.skip("the backend cannot copy this image")
        self.check_free(image_id)

    @needs(WRITE, "copies_within")
    def test_no_image(self) -> None:
        """Copying a missing image raises `NotFound`."""
        missing = self.missing_uri()
        with self.leaving_nothing(), pytest.raises(exceptions.NotFound):
            self.copy(missing, self.new_id())
