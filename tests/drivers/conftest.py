# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of all drivers that need no server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import requests

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


@pytest.fixture
def sent_with_netrc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[requests.PreparedRequest]:
    """What requests sends, with a .netrc file that has a password for every server."""
    path = tmp_path / "netrc"
    path.write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(path))
    sent: list[requests.PreparedRequest] = []
    send = requests.Session.send

    def note(session: requests.Session, request: requests.PreparedRequest, **kwargs: Any) -> Any:
        sent.append(request)
        return send(session, request, **kwargs)

    monkeypatch.setattr(requests.Session, "send", note)
    return sent
