# SPDX-License-Identifier: Apache-2.0
"""The command tells what it can do: in the shell, in its help and in its page."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

import pytest

from glance_store.cli.main import build_parser

from .command import BASE, Command

PAGE = Path(__file__).parents[2] / "doc" / "source" / "cli" / "glance-store.rst"


def commands() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(subparsers.choices)


def sections() -> dict[str, str]:
    """Return {title: text} of the page."""
    parts = re.split(r"^(\S.*)\n=+\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def named_in(text: str) -> set[str]:
    return set(re.findall("(?<!-)--[a-z][a-z-]+", text))


@pytest.mark.parametrize("name", commands())
def test_the_page_has_each_option(name):
    page = sections()
    common = named_in(page["Common options"] + page["Configuration"])
    options = {
        option
        for action in commands()[name]._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    assert options - common - {"--help"} <= named_in(page[name])


def test_the_help_names_each_command():
    text = build_parser().format_help()
    assert all(re.search(rf"^    {name}  ", text, flags=re.MULTILINE) for name in commands())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("glance-store be", ["bench"]),
        ("glance-store ls --state ", ["complete", "incomplete", "foreign"]),
        ("glance-store --config-file {config} ls ", ["fast", "cheap"]),
        ("glance-store bench --config-file={config} --store ch", ["cheap"]),
        ("glance-store put --config-file=/no/such/file --store ", []),
    ],
)
def test_completion(config, line, expected):
    """As the shell asks, on the descriptors that it has for that."""
    line = line.format(config=config)
    result = subprocess.run(
        ["bash", "-c", '"$@" 8>&1 9>/dev/null >/dev/null 2>&1', "bash", *BASE],
        check=True,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        },
    )
    found = result.stdout.decode().split()
    assert sorted(word for word in found if not word.startswith("-")) == sorted(expected)


def test_dry_run_removes_nothing(command: Command, small, tmp_path):
    location = command("put", small, "--json").json["location"]
    result = command("rm", location, "--dry-run")
    assert result.code == 0
    assert result.out == "Would remove 10000 bytes (9.8 KiB) from the store fast.\n"
    assert command("rm", location, "--dry-run", "--json").json["removed"] is False
    assert len(os.listdir(tmp_path / "fast")) == 1
    assert command("rm", location, "--dry-run", "--yes").code == 2
    assert command("rm", location + "-missing", "--dry-run").code == 3
    assert command("gc", "--dry-run").out == "Nothing was left behind\n"
