# SPDX-License-Identifier: Apache-2.0
"""Finds the command lines of `glance-store` in the text of a shell."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

from glance_store.cli.main import build_parser

# What ends a command: a pipe, a redirection, the next one.
_ENDS = re.compile(r"^[|;&<>()]+$")
_BEGIN = re.compile(r"(?:^|(?<=[|;&(]))\s*(?:sudo (?:-u \w+ )?)?(glance-store) ")
# In a synopsis there are brackets and choices.
_SYNOPSIS = re.compile(r"\[[-A-Z]|\.\.\.(?: |$)|[A-Z] \|")


def command_lines(text: str) -> Iterator[str]:
    """Yield the command lines in the text of a block.

    A block with prompts has output as well, which is not looked at.
    """
    joined = re.sub(r" *\\\n\s*", " ", text)
    lines = joined.splitlines()
    if any(line.startswith(("$ ", "# glance-store")) for line in lines):
        lines = [line[2:] for line in lines if line.startswith(("$ ", "# "))]
    for line in lines:
        code = line.split(" #")[0]
        if _SYNOPSIS.search(code):
            continue
        for found in _BEGIN.finditer(code):
            yield code[found.start(1) :]


def words_of(line: str) -> list[str]:
    """Return the words of a command, without what the shell sees to, such as redirections."""
    lexer = shlex.shlex(line.replace(">(", "> ("), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if _ENDS.match(word):
                break
            words.append(word)
    except ValueError:
        # It stands in quotes that began before it: $(...) in a string.
        return words_of(line.rpartition('"')[0].rstrip(")"))
    return words[1:]


def parse(line: str) -> argparse.Namespace:
    """Parse a command line as the command does.

    :raises UsageError: the command would refuse it
    """
    words = words_of(line)
    if words in (["--version"], ["--help"], ["-h"]) or "--help" in words:
        return argparse.Namespace()
    return build_parser().parse_args(words)
