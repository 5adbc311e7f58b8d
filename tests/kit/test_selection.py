# SPDX-License-Identifier: Apache-2.0
"""Which tests of the kit run on which configuration of a driver."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from glance_store.testing import StoreConformance, touches
from glance_store.testing.kit import ASPECTS, touched

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = Path(__file__).with_name("configurations.py")
TOUCHED = {
    name: touched(getattr(StoreConformance, name))
    for name in dir(StoreConformance)
    if name.startswith("test_")
}
VARIANTS = {"TestVariant", "TestVariantOfTheVariant"}


def collect(*arguments: str | Path) -> str:
    """Return what pytest says about the tests that it would run."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"),
            *("-p", "glance_store.testing.selection", *arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    return done.stdout


def by_class(said: str) -> dict[str, set[str]]:
    """Return the collected tests of each class, without their parameters."""
    found: dict[str, set[str]] = defaultdict(set)
    for scopes in re.findall(r"^tests/[^:]*\.py::([\w:]+)", said, re.MULTILINE):
        kit, _colons, name = scopes.rpartition("::")
        found[kit].add(name)
    return found


def rows(said: str) -> dict[str, tuple[int, int]]:
    """Return of each class in the table how many tests run, and of how many."""
    found = re.findall(r"^ *(\d+) (Test\w+)(?: of (\d+): .*)?$", said, re.MULTILINE)
    return {kit: (int(count), int(everything or count)) for count, kit, everything in found}


@pytest.fixture(scope="module")
def selection() -> str:
    """What pytest says when it leaves out what it may."""
    return collect(CONFIGURATIONS)


def test_every_test_says_what_it_touches() -> None:
    """What does not say it would run on every configuration."""
    assert [name for name, aspects in TOUCHED.items() if aspects is None] == []


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_aspect_tells_tests_apart(aspect: str) -> None:
    touching = [name for name, aspects in TOUCHED.items() if aspects and aspect in aspects]
    assert 0 < len(touching) < len(TOUCHED)


def test_variants_run_what_they_change(selection: str) -> None:
    found = by_class(selection)
    locking = {name for name, aspects in TOUCHED.items() if aspects and "locking" in aspects}
    assert found["TestMain"] == set(TOUCHED)
    for variant in VARIANTS:
        assert found[variant] == {*locking, "test_of_its_own", "test_hash"}
    assert found["TestNothingButItsOwn"] == {"test_of_its_own"}
    assert found[""] == {"test_outside_of_the_kit"}


def test_all_runs_everything() -> None:
    said = collect(CONFIGURATIONS, "--all")
    found = by_class(said)
    for variant in (*VARIANTS, "TestNothingButItsOwn"):
        assert found[variant] == {*found["TestMain"], "test_of_its_own"}
    assert " deselected" not in said


def test_what_is_left_out_is_deselected_and_counted(selection: str) -> None:
    counted = re.search(r"(\d+)/(\d+) tests collected \((\d+) deselected\)", selection)
    assert counted is not None, selection
    chosen, everything, deselected = map(int, counted.groups())
    table = rows(selection)
    # One test is not of the kit.
    assert sum(count for count, _all in table.values()) == chosen - 1
    assert sum(count for _chosen, count in table.values()) == everything - 1
    assert deselected == everything - chosen
    # All of the kit, and the test that is not.
    checks = re.findall(r"^ *(\d+) distinct checks$", selection, re.MULTILINE)
    assert checks == [str(table["TestMain"][0] + 1)]


def test_no_check_of_a_driver_is_left_out() -> None:
    """What one configuration leaves out, another runs."""
    kits = sorted(ROOT.glob("tests/drivers/*/test_kit.py"))
    checks = [
        re.findall(r"^conformance kit: (tests/\S+)|^ *(\d+) distinct checks$", said, re.MULTILINE)
        for said in (collect(*kits), collect(*kits, "--all"))
    ]
    assert len(checks[0]) == 2 * len(kits)
    assert checks[0] == checks[1]


@pytest.mark.parametrize("wrong", ["layout", ("lay-out",), ("layout", "")])
def test_unknown_aspects_are_refused(wrong: str | tuple[str, ...]) -> None:
    """Also a tuple that lacks its comma."""
    with pytest.raises(TypeError, match=r"TestMine\.variant names .*the kit knows layout, wire"):
        type("TestMine", (StoreConformance,), {"variant": wrong})
    with pytest.raises(TypeError, match=r"touches\(\) names"):
        touches(*wrong)
