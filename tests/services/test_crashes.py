# SPDX-License-Identifier: Apache-2.0
"""One test of a run that Ceph's library has ended runs again, no other and no second one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.crashes import VARIABLE, pytest_handlecrashitem

RBD = "tests/drivers/rbd/test_kit.py::TestRbd::test_size"


def outcome(test: str) -> str:
    report = SimpleNamespace(outcome="failed")
    pytest_handlecrashitem(test, report)
    return str(report.outcome)


def test_one_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "crashes"
    monkeypatch.setenv(VARIABLE, str(noted))
    assert outcome("tests/drivers/s3/test_kit.py::TestRadosgw::test_size") == "failed"
    assert not noted.exists()
    assert outcome(RBD) == "rerun"
    assert outcome(RBD) == "failed"
    assert noted.read_text() == f"{RBD}\n"


def test_nobody_would_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert outcome(RBD) == "failed"
