# SPDX-License-Identifier: Apache-2.0
"""Images, leftovers and capacity of a store, for drivers that report them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from glance_store import exceptions
from glance_store.inventory import COMPLETE, STATES
from glance_store.testing.inputs import Source, image
from glance_store.testing.kit import WRITE, Kit, needs, touches

_T = TypeVar("_T")

_HOUR = 3600.0
# Finds leftovers of any age, even if the clock of the backend is ahead.
_ANY_AGE = -60.0
_BLOCKS = 6
# Seconds until the backend has processed all requests of a dead client.
_PATIENCE = 60.0


def _listed(find: Callable[[], Iterator[_T]]) -> list[_T]:
    try:
        return list(find())
    except exceptions.UnsupportedBackend as exc:
        pytest.skip(str(exc))


@touches("layout", "account", "locations")
class Holdings(Kit):
    """Images are listed with valid locations; only dead uploads count as leftovers."""

    @needs(WRITE)
    def test_images(self) -> None:
        """All stored images are listed with location and size, and nothing else is."""
        _listed(self.store.images)
        expected = {}
        for size in (0, 1, self.block_size, 3 * self.block_size + 5):
            image_id = self.new_id()
            expected[image_id] = (self.add(image_id, image(size)), size)
        found = {
            one.image_id: (one.uri, one.size)
            for one in self.call(_listed, self.store.images)
            if one.state == COMPLETE
        }
        # A backend may not know the exact size.
        assert found.keys() == expected.keys()
        for image_id, (uri, size) in expected.items():
            assert found[image_id][0] == uri
            assert found[image_id][1] in (None, size)
            self.delete(uri)
        assert not [one for one in _listed(self.store.images) if one.state == COMPLETE]

    @needs(WRITE)
    def test_a_living_upload_is_no_leftover(self) -> None:
        """A running upload is neither a leftover nor a complete image."""
        _listed(lambda: self.store.leftovers(_HOUR))
        image_id = self.new_id()
        data = image(_BLOCKS * self.block_size)
        looks = 0

        def look(position: int) -> None:
            nonlocal looks
            if position >= (_BLOCKS - 2) * self.block_size:
                looks += 1
                limit = _ANY_AGE if self.knows_the_living else _HOUR
                assert not list(self.store.leftovers(limit))
                states = {one.state for one in self.store.images() if one.image_id == image_id}
                assert COMPLETE not in states
                assert states <= set(STATES)

        uri = self.add(image_id, Source(data, before_read=look), len(data))
        assert looks
        assert self.read(uri) == data
        assert not list(self.store.leftovers(_ANY_AGE))

    @needs(WRITE, "finds_killed_uploads")
    def test_what_a_killed_upload_leaves(self) -> None:
        """What a killed upload leaves is found and removed; images stay."""
        _listed(lambda: self.store.leftovers(_HOUR))
        data = image(self.block_size + 1)
        uri = self.add(self.new_id(), data)
        before = sorted(self.listing())
        for known in (True, False):
            self._killed_upload(known)
            self.wait_until_dead()
            self._collect(before)
            assert sorted(self.listing()) == before
        assert self.read(uri) == data

    def _collect(self, before: list[Any]) -> None:
        """Remove leftovers until no more appear: requests may still have been in flight."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = list(self.store.leftovers(_ANY_AGE))
            for left in found:
                assert left.proof
                with contextlib.suppress(exceptions.InUseByStore):
                    left.remove()
            if (not found and sorted(self.listing()) == before) or time.monotonic() > deadline:
                return

    def _killed_upload(self, known: bool) -> None:
        child = os.fork()
        if child == 0:
            try:
                data = image(2 * _BLOCKS * self.block_size)

                def die(position: int) -> None:
                    if position >= _BLOCKS * self.block_size:
                        os.kill(os.getpid(), signal.SIGKILL)

                def upload() -> None:
                    source = Source(data, portion=self.block_size, before_read=die)
                    size = len(data) if known else 0
                    self.make_store().add(self.new_id(), source, size, "sha256")

                # On this one librados would go on with its parent's random numbers, and Ceph take
                # the two processes for one client.
                thread = threading.Thread(target=upload)
                thread.start()
                thread.join()
            finally:
                os._exit(1)
        _child, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the upload failed before it was killed"

    @touches()
    def test_capacity(self) -> None:
        """Capacity is reported in bytes, or not at all."""
        room = self.store.capacity()
        for figure in room or ():
            assert figure is None or (isinstance(figure, int) and figure >= 0)
