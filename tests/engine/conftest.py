# SPDX-License-Identifier: Apache-2.0
"""No test of the engine may leave a thread of it behind, or be counted as at work for ever."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from glance_store.transfer.load import LOAD

from .memory import engine_threads


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    assert engine_threads() == []
    yield
    assert engine_threads() == []
    if LOAD._at_work:
        gc.collect()  # an interrupted transfer counts until it is collected
    assert not LOAD._at_work
