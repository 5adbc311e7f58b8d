# SPDX-License-Identifier: Apache-2.0
"""No test of the engine may leave a thread of it behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .memory import engine_threads


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    assert engine_threads() == []
    yield
    assert engine_threads() == []
