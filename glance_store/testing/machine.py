# SPDX-License-Identifier: Apache-2.0
"""Random sequences of operations on a store, compared with a model in memory. Needs hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from glance_store import exceptions
from glance_store.testing.inputs import Source, SourceError, check_bytes, image
from glance_store.testing.kit import Kit

_SLOTS = st.integers(0, 3)
_SEEDS = st.integers(0, 5)
# Size of the largest image.
_BLOCKS = 3

SETTINGS = settings(
    stateful_step_count=20,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def run(kit: Kit) -> None:
    """Compare the store of a running test with the model."""
    block = kit.block_size
    edges = [0, 1, block - 1, block, block + 1, 2 * block, _BLOCKS * block]
    sizes = st.one_of(st.sampled_from(edges), st.integers(0, _BLOCKS * block))

    class Machine(_Machine):
        """The base machine, with image sizes around the block size."""

        def __init__(self) -> None:
            super().__init__(kit)

        @rule(slot=_SLOTS, size=sizes, seed=_SEEDS, known=st.booleans())
        def add(self, slot: int, size: int, seed: int, known: bool) -> None:
            """Store an image."""
            self.store_image(slot, image(size, seed), size if known else 0)

        @rule(slot=_SLOTS, size=sizes, seed=_SEEDS, error=st.sampled_from([-1, 1]))
        def add_with_a_wrong_size(self, slot: int, size: int, seed: int, error: int) -> None:
            """Fail to store an image whose size is wrong."""
            self.fail_to_store(slot, image(size, seed), max(size + error, 1 if size != 1 else 2))

        @rule(slot=_SLOTS, size=sizes, seed=_SEEDS)
        def add_from_a_broken_source(self, slot: int, size: int, seed: int) -> None:
            """Fail to store an image whose source fails."""
            self.fail_to_store(slot, Source(image(size, seed), end=SourceError("gone")), 0)

        @rule(slot=_SLOTS, start=st.integers(0, _BLOCKS * block), length=st.integers(1, 2 * block))
        def read_range(self, slot: int, start: int, length: int) -> None:
            """Read a part of an image."""
            self.compare_range(slot, start, length)

    run_state_machine_as_test(
        Machine, settings=settings(SETTINGS, max_examples=kit.random_sequences)
    )


class _Machine(RuleBasedStateMachine):
    """Images by slot: each slot has one id, and at most one image at a time."""

    def __init__(self, kit: Kit) -> None:
        super().__init__()
        self.kit = kit
        self.store = kit.new_store()
        self.empty = self.expected = sorted(kit.listing())
        self.ids = [kit.new_id() for _slot in range(4)]
        self.places: dict[int, str] = {}
        self.model: dict[int, bytes] = {}

    def store_image(self, slot: int, data: bytes, announced: int) -> None:
        """Store an image, or get `Duplicate` if there is one."""
        if slot in self.model:
            with pytest.raises(exceptions.Duplicate):
                self.kit.add(self.ids[slot], data, announced, self.store)
            return
        self.places[slot] = self.kit.add(self.ids[slot], data, announced, self.store)
        self.model[slot] = data
        self.expected = sorted(self.kit.listing())

    def fail_to_store(self, slot: int, source: Any, announced: int) -> None:
        """Try to store something that must be refused."""
        with pytest.raises((SourceError, exceptions.Invalid, exceptions.Duplicate)):
            self.kit.add(self.ids[slot], source, announced, self.store)

    def compare_range(self, slot: int, start: int, length: int) -> None:
        """Read a part of an image if it exists."""
        if slot in self.model:
            uri, data = self.places[slot], self.model[slot]
            found = self.kit.read(uri, self.store, offset=start, chunk_size=length)
            check_bytes(found, data[start : start + length])

    @rule(slot=_SLOTS)
    def read(self, slot: int) -> None:
        """Read an image, or get `NotFound`."""
        if slot in self.model:
            check_bytes(self.kit.read(self.places[slot], self.store), self.model[slot])
            assert self.kit.size(self.places[slot], self.store) == len(self.model[slot])
        elif slot in self.places:
            self.kit.check_missing(self.places[slot])

    @rule(slot=_SLOTS)
    def delete(self, slot: int) -> None:
        """Delete an image, or get `NotFound`."""
        if slot in self.model:
            self.kit.delete(self.places[slot], self.store)
            del self.model[slot]
            self.expected = sorted(self.kit.listing())
        elif slot in self.places:
            with pytest.raises(exceptions.NotFound):
                self.kit.delete(self.places[slot], self.store)

    @rule()
    def restart(self) -> None:
        """Continue with a new store."""
        self.store = self.kit.new_store()

    @invariant()
    def nothing_else_changes(self) -> None:
        """Check the contents of the backend: failures and reads change nothing."""
        assert sorted(self.kit.listing()) == self.expected

    def teardown(self) -> None:
        """Delete all images, and check that nothing is left."""
        for slot in self.model:
            self.kit.delete(self.places[slot], self.store)
        assert sorted(self.kit.listing()) == self.empty
