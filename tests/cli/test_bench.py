# SPDX-License-Identifier: Apache-2.0
"""`glance-store bench` measures a store, and leaves nothing in it."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.waiting import until

from .command import one_line_error


def test_figures_of_each_operation_and_size(command, tmp_path):
    result = command("bench", "--size=64k,1M", "--parallel=2", "--count=3", "--json")
    assert result.code == 0
    found = result.json
    assert found["store"] == "fast"
    assert found["limits"]["disk"] == str(tmp_path / "fast")
    assert all(value for name, value in found["limits"].items() if name != "load")
    rows = found["results"]
    assert [(row["operation"], row["size"]) for row in rows] == [
        (operation, size) for size in ("64k", "1M") for operation in ("put", "get", "remove")
    ]
    assert all(row["images"] == 3 and row["images_per_second"] > 0 for row in rows)
    assert all(0 < row["median_seconds"] <= row["slowest_seconds"] for row in rows)
    assert [bool(row["bytes_per_second"]) for row in rows] == [True, True, False] * 2
    assert os.listdir(tmp_path / "fast") == []


def test_a_table_for_people(command, tmp_path):
    result = command("bench", "--store=cheap", "--size=4K", "--count=1", "--hash=md5")
    assert result.code == 0
    assert "| put       | 4K   | 1      |" in result.out
    assert "; md5 of one upload" in result.out
    assert f"The disk under {tmp_path}/cheap: writes" in result.out


def test_what_does_not_fit_is_not_begun(command):
    result = command("bench", "--size=4000T")
    assert result.code == 2
    assert "free" in one_line_error(result)


def test_dry_run_stores_nothing(command, tmp_path):
    result = command("bench", "--size=1K,1M", "--parallel=4", "--count=2", "--dry-run")
    assert result.out == (
        "Would put 4 images into the store fast, at most 2097152 bytes (2.0 MiB) at a time, and "
        "remove them\n"
    )
    assert os.listdir(tmp_path / "fast") == []


@pytest.mark.parametrize("words", [["--size=64K,"], ["--disk=/no/such/folder"]])
def test_mistakes(command, words):
    result = command("bench", *words)
    assert result.code == 2
    assert words[0].partition("=")[0] in one_line_error(result)


def test_a_store_that_is_read_only(command, tmp_path):
    (tmp_path / "fast").write_text("a file in its place")
    result = command("bench", "--size=4K")
    assert result.code == 1
    assert "Store fast cannot add or delete images" in result.err.splitlines()[-1]


def test_an_interrupt_removes_what_was_put(command, tmp_path):
    process = command.start(
        "bench", "--size=32M", "--count=20", "--parallel=2", stderr=subprocess.PIPE
    )
    folder = tmp_path / "fast"

    def under_way():
        assert process.poll() is None, "it has ended before its first image was seen"
        return folder.is_dir() and any("bench" in name for name in os.listdir(folder))

    until(under_way, "an image of the benchmark is in the store")
    process.send_signal(signal.SIGINT)
    assert process.stderr.read().startswith(b"glance-store: error: ")
    assert process.wait(60) == 130
    assert os.listdir(folder) == []
    process.stderr.close()
