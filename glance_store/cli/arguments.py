# SPDX-License-Identifier: Apache-2.0
"""The values of the command's arguments, and what is said of those that are none."""

from __future__ import annotations

import argparse
import re

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Seconds: an upload that waits for its source may be silent for a while.
_YOUNGEST = 3600.0


def size(text: str) -> int:
    """Return a number of bytes, such as 4096, 64K or 2G."""
    found = re.fullmatch(r"([0-9]{1,18})([KMGT]?)(?:iB)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} is no number of bytes, such as 4096, 64K, 2G"
        )
    return int(found[1]) * _FACTORS[found[2]]


def add_storing(parser: argparse.ArgumentParser) -> None:
    """Add what commands that store images have in common.

    :param parser: of the command
    """
    parser.add_argument("--store", metavar="ID", help="the store (default: the default store)")
    parser.add_argument(
        "--hash",
        type=str.lower,
        default="sha512",
        metavar="NAME",
        help="multihash to compute (default: sha512)",
    )


def length(text: str) -> int:
    """Return a number of bytes, at least one."""
    found = size(text)
    if not found:
        raise argparse.ArgumentTypeError("at least 1 byte")
    return found


def image_id(text: str) -> str:
    """Return what can be the id of an image."""
    if not text.isprintable() or not text.strip() or "/" in text or text in (".", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the id of an image")
    return text


def seconds(text: str) -> float:
    """Return a number of seconds, more than none."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no number of seconds")
    return float(text)


def sample(text: str) -> tuple[int, int]:
    """Return a part of a whole, such as 1/7."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    part, whole = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < part <= whole:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no part of a whole, such as 1/7")
    return part, whole


def count(text: str) -> int:
    """Return a number from 1 to 999."""
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no number between 1 and 999")
    return int(text)


def age(text: str) -> float:
    """Return the seconds of a time such as 90m, 12h or 7d, at least those of an hour."""
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no time, such as 90m, 12h, 7d")
    asked = float(int(found[1]) * {"m": 60, "h": 3600, "d": 86400}[found[2]])
    if asked < _YOUNGEST:
        raise argparse.ArgumentTypeError("at least an hour (1h): younger ones may be alive")
    return asked
