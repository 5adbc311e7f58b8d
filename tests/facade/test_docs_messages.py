# SPDX-License-Identifier: Apache-2.0
"""What the administrator's pages say of messages and secrets is what the package has."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

import glance_store
from glance_store import backend, multi_backend

ADMIN = Path(__file__).parents[2] / "doc" / "source" / "admin"
PACKAGE = Path(glance_store.__file__).parent
PAGES = sorted(ADMIN.rglob("*.rst"))
STORES = sorted((ADMIN / "stores").glob("*.rst"))

# A line of one literal, with its explanation on the next one, which is indented further.
_TERM = re.compile(r"^( *)``([^`]+)``$\n\1 +\S", re.MULTILINE)
# And what the explanation says comes with it.
_BESIDE = re.compile(r"``([^`]+)``\s+(?:follows|before it|after it)\b")
_PLACE = re.compile(r"%\(\w+\)[.\d]*[a-z]|%[.\d]*[a-z]")
_GAP = "\0"

# In the order in which each store's page has them.
_SHAPE = [
    "What it is for",
    "Configuration",
    "Rights",
    "Guarantees",
    "Leftovers",
    "Limits",
    "Tuning",
    "Errors and what to do",
]

_OPTION = re.compile("``([a-z0-9_]+_[a-z0-9_]+)``")


@functools.cache
def _templates() -> tuple[str, ...]:
    """Return all texts of the package but docstrings, with a gap where a value is filled in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [
                    str(part.value) if isinstance(part, ast.Constant) else _GAP
                    for part in node.values
                ]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(_PLACE.sub(_GAP, node.value))
    return tuple(" ".join(text.split()) for text in found)


def _quotes() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for quote in [found[2] for found in _TERM.finditer(text)] + _BESIDE.findall(text):
            if " " in quote:
                yield page.name, " ".join(quote.split())


def _pattern(quote: str) -> re.Pattern[str]:
    """Return what a text must contain: the words, with anything where the page has dots."""
    words = [re.escape(part.strip()) for part in quote.split("...")]
    return re.compile(".*".join(words), re.DOTALL)


def _options() -> dict[str, cfg.Opt]:
    groups = [*backend._list_opts(), *multi_backend._list_config_opts()]
    return {opt.name: opt for _group, opts in groups for opt in opts}


@pytest.mark.parametrize(("page", "quote"), tuple(_quotes()))
def test_each_quoted_message_is_in_the_package(page: str, quote: str) -> None:
    """A message that was reworded is found here, not by an administrator who searches for it."""
    assert len(quote.replace("...", "").strip()) > 7, "too short to be found"
    pattern = _pattern(quote)
    assert any(pattern.search(text) for text in _templates()), f"{page} quotes what nobody says"


def test_the_pages_quote_messages() -> None:
    """The pattern that finds them has not become blind."""
    pages = {page for page, _quote in _quotes()}

    assert {"troubleshooting.rst", *(page.name for page in STORES)} <= pages


@pytest.mark.parametrize("page", STORES, ids=lambda page: page.stem)
def test_each_store_has_the_same_shape(page: Path) -> None:
    """Who knows one page finds his way on all of them."""
    text = page.read_text(encoding="utf-8")

    assert re.findall(r"^([^\n=]+)\n=+$(?!\n=)", text, re.MULTILINE)[-len(_SHAPE) :] == _SHAPE


def test_all_secret_options_are_listed() -> None:
    """The page about security names each option whose value is a secret, and no other."""
    text = (ADMIN / "security.rst").read_text(encoding="utf-8")
    table = text.partition("Secret options")[2].partition("The proxy options")[0]

    assert set(_OPTION.findall(table)) == {name for name, opt in _options().items() if opt.secret}
