# SPDX-License-Identifier: Apache-2.0
"""The tour of the command shows what the command prints."""

from __future__ import annotations

import pytest

from . import tour
from .tour import Step, is_same


def test_output_is_that_of_the_page(tmp_path):
    wrong = []
    for step, printed in tour.walk(tmp_path):
        if not is_same(step, printed):
            shown = "\n".join(step.shown)
            found = "\n".join(printed)
            wrong.append(f"line {step.line}: {step.command}\n{shown}\n-- and not\n{found}")
    assert not wrong, "python -m tests.docs.tour writes the page\n\n" + "\n\n".join(wrong)


@pytest.mark.parametrize(
    ("command", "shown", "printed", "same"),
    [
        ("glance-store stat x", "size: 10 bytes", "size: 11 bytes", False),
        ("glance-store stat x", "size: 10 bytes", "size:    10 bytes", True),
        ("glance-store put x", "hash: 12ab...", "hash: 12abcd", True),
        ("glance-store put x", "hash: 12ab...", "hash: 13abcd", False),
        ("glance-store bench", "| put | 64K | 2 | 1.5 |", "| put | 64K | 2 | 7.25 |", True),
        ("glance-store bench", "| put | 64K | 2 | 1.5 |", "| get | 64K | 2 | 1.5 |", False),
        ("glance-store stores", "1.5 GiB free", "20.1 TiB free", True),
    ],
)
def test_what_may_differ(command, shown, printed, same):
    assert is_same(Step(1, command, [shown]), [printed]) is same


def test_other_output_is_noticed(tmp_path):
    page = tmp_path / "page.rst"
    page.write_text(".. code-block:: console\n\n   $ echo one\n   one\n   $ echo two\n   three\n")
    found = [is_same(*each) for each in tour.walk(tmp_path / "root", page)]
    assert found == [True, False]
