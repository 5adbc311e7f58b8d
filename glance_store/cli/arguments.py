# SPDX-License-Identifier: Apache-2.0
"""Parses the values of command-line arguments."""

from __future__ import annotations

import argparse
import re

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Seconds: an upload that waits for its source may be silent for a while.
_YOUNGEST = 3600.0


def size(text: str) -> int:
    """Parse a number of bytes, such as 4096, 64K or 2G."""
    found = re.fullmatch(r"([0-9]{1,18})([KMGT]?)(?:iB)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} is not a number of bytes, such as 4096, 64K or 2G"
        )
    return int(found[1]) * _FACTORS[found[2]]


def add_storing(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all commands which store images share."""
    parser.add_argument(
        "--store", metavar="ID", help="store for the images (default: the default store)"
    )
    parser.add_argument(
        "--hash",
        type=str.lower,
        default="sha512",
        metavar="NAME",
        help="algorithm of the multihash (default: sha512)",
    )


def length(text: str) -> int:
    """Parse a number of bytes, at least one."""
    found = size(text)
    if not found:
        raise argparse.ArgumentTypeError("must be at least 1 byte")
    return found


def image_id(text: str) -> str:
    """Check an image id."""
    if not text.isprintable() or not text.strip() or "/" in text or text in (".", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid image id")
    return text


def seconds(text: str) -> float:
    """Parse a number of seconds above zero."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a number of seconds above 0")
    return float(text)


def sample(text: str) -> tuple[int, int]:
    """Parse a fraction, such as 1/7."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    part, whole = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < part <= whole:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a fraction, such as 1/7")
    return part, whole


def count(text: str) -> int:
    """Parse a number from 1 to 999."""
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a number from 1 to 999")
    return int(text)


def age(text: str) -> float:
    """Parse a time such as 90m, 12h or 7d into seconds; at least one hour."""
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not a time, such as 90m, 12h or 7d")
    asked = float(int(found[1]) * {"m": 60, "h": 3600, "d": 86400}[found[2]])
    if asked < _YOUNGEST:
        raise argparse.ArgumentTypeError(
            "must be at least one hour (1h): a younger upload may still be running"
        )
    return asked
