# SPDX-License-Identifier: Apache-2.0
"""Shell completion with argcomplete, which the extra ``completion`` installs."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from oslo_config import cfg

from glance_store.cli import config
from glance_store.cli.errors import UsageError


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """If a shell asks for completions, print them and end the process."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    completers = {"store": _stores, "hash": _hashes}
    for action in _actions(parser):
        if action.dest in completers:
            action.completer = completers[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public access
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _actions(command)


def _stores(**_context: Any) -> Iterable[str]:
    """Return the names of the stores from the configuration alone."""
    try:
        return config.names(config.load(_given("--config-file"), _given("--config-dir")))
    except (UsageError, cfg.Error, OSError):
        # The command itself reports the mistake.
        return ()


def _given(option: str) -> list[str]:
    """Return an option's values on the line; argcomplete skips options with custom actions."""
    words = os.environ.get("COMP_LINE", "").split()
    return [value for word, value in itertools.pairwise(words) if word == option] + [
        word.removeprefix(f"{option}=") for word in words if word.startswith(f"{option}=")
    ]


def _hashes(**_context: Any) -> Iterable[str]:
    return hashlib.algorithms_guaranteed
