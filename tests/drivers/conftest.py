# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of all drivers that need no server."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from glance_store.transfer import retry


@pytest.fixture(autouse=True)
def short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pauses between tries are short: what is tried again works the next time."""
    # On real servers there are tests of what comes late.
    if request.path.parent.name == "unit":
        monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.02)


@pytest.fixture
def socket_options(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The options that are set on sockets."""
    noted: list[tuple[Any, ...]] = []
    setsockopt = socket.socket.setsockopt

    def note(self: socket.socket, *option: Any) -> None:
        noted.append(option)
        setsockopt(self, *option)

    monkeypatch.setattr(socket.socket, "setsockopt", note)
    return noted
