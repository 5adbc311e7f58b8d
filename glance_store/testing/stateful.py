# SPDX-License-Identifier: Apache-2.0
"""Random operations in random order."""

from __future__ import annotations

import pytest

from glance_store.testing.kit import RANGES, WRITE, Kit, needs, touches


@touches("layout", "wire")
class Stateful(Kit):
    """A store behaves like a dictionary of bytes."""

    @needs(WRITE, RANGES)
    def test_random_operations(self) -> None:
        """After any sequence of operations, the store matches the model."""
        pytest.importorskip("hypothesis", reason="needs the library hypothesis")
        from glance_store.testing import machine

        machine.run(self)
