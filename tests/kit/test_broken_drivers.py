# SPDX-License-Identifier: Apache-2.0
"""The kit, checked: each of seven drivers, broken on purpose, fails it at the right test."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVERS = Path(__file__).with_name("broken_drivers.py")

# Where each has to fail; and where not, since what these tests are about is in order.
BROKEN = {
    "LeaksOnAbort": (
        {
            "test_source_that_raises",
            "test_wrong_size",
            "test_interrupt",
            "test_verifier_that_raises",
            "test_verifier_that_refuses",
        },
        {"test_round_trip", "test_range", "test_duplicate", "test_delete"},
    ),
    "IgnoresOffset": (
        {"test_range", "test_readers_of_ranges", "test_ranges_make_the_whole"},
        {"test_round_trip", "test_source_that_raises", "test_duplicate", "test_writers"},
    ),
    "ReadsShort": (
        {"test_round_trip", "test_hash", "test_size", "test_readers_of_one_image"},
        {"test_delete", "test_delete_twice", "test_url_prefix", "test_negative_range"},
    ),
    "OverwritesOnDuplicate": (
        {"test_duplicate", "test_duplicate_in_another_store", "test_race_for_one_id"},
        {"test_round_trip", "test_source_that_raises", "test_range", "test_delete"},
    ),
    "LogsASecret": (
        {"test_use_shows_no_secret"},
        {"test_round_trip", "test_source_that_raises", "test_range", "test_duplicate"},
    ),
    "PublishesEarly": (
        {"test_image_is_invisible_until_it_is_complete"},
        {"test_round_trip", "test_source_that_raises", "test_range", "test_delete"},
    ),
    "UsesAnExecutor": (
        {"test_when_the_main_thread_has_ended"},
        {"test_round_trip", "test_source_that_raises", "test_duplicate", "test_delete"},
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Run the kit on all of them; the tests by class and outcome, without their parameters."""
    report = tmp_path_factory.mktemp("broken") / "report.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", DRIVERS, f"--junitxml={report}"),
            *("-q", "--tb=no", "-p", "no:cacheprovider", f"--basetemp={report.parent / 'tests'}"),
            # It looks for the smallest failing sequence, which takes time and is not needed here.
            *("-k", "not test_random_operations"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in ET.parse(report).iter("testcase"):
        driver = case.attrib["classname"].rpartition(".Test")[2]
        name = case.attrib["name"].partition("[")[0]
        outcome = next((child.tag for child in case if child.tag != "system-out"), "passed")
        found[driver][outcome].add(name)
    return found


def test_the_sound_driver_passes(outcomes: dict[str, dict[str, set[str]]]) -> None:
    """So what the others fail at is what is broken."""
    assert set(outcomes["Sound"]) == {"passed", "skipped"}
    assert len(outcomes["Sound"]["passed"]) > 60


def test_all_of_them_are_run(outcomes: dict[str, dict[str, set[str]]]) -> None:
    assert set(outcomes) == {"Sound", *BROKEN}


@pytest.mark.parametrize("driver", BROKEN)
def test_broken_driver_fails(driver: str, outcomes: dict[str, dict[str, set[str]]]) -> None:
    expected, sound = BROKEN[driver]
    failed = outcomes[driver]["failure"]
    assert expected <= failed
    assert not sound & failed
    assert sound <= outcomes["Sound"]["passed"]


def test_every_test_looks_for_secrets(outcomes: dict[str, dict[str, set[str]]]) -> None:
    """Also tests that are about something else end with an error when a secret is logged."""
    assert {"test_round_trip", "test_range", "test_duplicate"} <= outcomes["LogsASecret"]["error"]
