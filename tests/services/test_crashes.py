# SPDX-License-Identifier: Apache-2.0
"""Tests that Ceph's library has ended run again, no others and not many; the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.crashes import LIMIT, VARIABLE, pytest_handlecrashitem

RBD = "tests/drivers/rbd/test_kit.py::TestRbd::test_size"


def outcome(test: str) -> str:
    report = SimpleNamespace(outcome="failed")
    pytest_handlecrashitem(test, report)
    return str(report.outcome)


def test_a_few_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "crashes"
    monkeypatch.setenv(VARIABLE, str(noted))
    assert outcome("tests/drivers/s3/test_kit.py::TestRadosgw::test_size") == "failed"
    assert not noted.exists()
    tests = [f"{RBD}[{number}]" for number in range(LIMIT)]
    assert [outcome(test) for test in tests] == ["rerun"] * LIMIT
    assert outcome(RBD) == "failed"
    assert noted.read_text().splitlines() == tests


def test_nobody_would_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert outcome(RBD) == "failed"


@pytest.mark.parametrize("place", [70, 99])
def test_the_rest_of_the_run_goes_on(tmp_path: Path, place: int) -> None:
    """xdist alone waits for ever when a process is lost that had worked off many groups."""
    for number in range(100):
        (tmp_path / f"test_{number:02}.py").write_text(
            "import os\ndef test_a(): pass\ndef test_b(): "
            + ("os.abort()\ndef test_c(): pass\n" if number == place else "pass\n")
        )
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['tests.grouping', 'tests.crashes']\n")
    run = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"), tmp_path],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 failed, 200 passed" in run.stdout, run.stdout + run.stderr
