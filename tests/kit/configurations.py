# SPDX-License-Identifier: Apache-2.0
"""The memory store in two configurations, as the kit's selection sees them.

Not collected with the other tests: `test_selection` runs this file.
"""

from __future__ import annotations

import pytest

from tests.kit.examples import load

load("memory_store")
kit = load("test_memory_store")


class TestMain(kit.TestMemoryStore):
    """Runs everything."""


class TestVariant(kit.TestMemoryStore):
    variant = ("locking",)

    def test_of_its_own(self) -> None:
        assert self.store

    @pytest.mark.parametrize("algorithm", ["sha256"])
    def test_hash(self, algorithm: str) -> None:
        """In place of a test that touches nothing: written for this configuration."""


class TestVariantOfTheVariant(TestVariant):
    """Inherits what it changes."""


class TestNothingButItsOwn(kit.TestMemoryStore):
    variant = ()

    def test_of_its_own(self) -> None:
        assert self.store


def test_outside_of_the_kit() -> None:
    """Is not touched by the selection."""
