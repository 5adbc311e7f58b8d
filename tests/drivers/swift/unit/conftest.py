# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that need no server but one on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glance_store._drivers.swift import large
from glance_store.transfer.retry import Patience
from tests.drivers.swift.loopback import LittleSwift

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[LittleSwift]:
    """A cluster with its identity service."""
    # Ports come again: what was known of a cluster there is of another one.
    large._CLUSTERS.clear()
    with LittleSwift() as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time."""
    noted: list[float] = []
    monkeypatch.setattr(Patience, "wait", lambda _self, seconds: noted.append(seconds))
    return noted
