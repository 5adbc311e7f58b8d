# SPDX-License-Identifier: Apache-2.0
"""A run goes on when one of its processes is lost, and the test that ended it has failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("place", [70, 99])
def test_the_rest_of_the_run_goes_on(tmp_path: Path, place: int) -> None:
    """xdist alone waits for ever when a process is lost that had worked off many groups."""
    for number in range(100):
        (tmp_path / f"test_{number:02}.py").write_text(
            "import os\ndef test_a(): pass\ndef test_b(): "
            + ("os.abort()\ndef test_c(): pass\n" if number == place else "pass\n")
        )
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['tests.grouping']\n")
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
