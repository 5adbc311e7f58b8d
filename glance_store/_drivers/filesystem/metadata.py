# SPDX-License-Identifier: Apache-2.0
"""The metadata file, which tells other users of the storage where the images are."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from glance_store._drivers.filesystem.mounts import is_within

LOG = logging.getLogger(__name__)

Entry = dict[str, Any]


def load(path: str) -> list[Entry]:
    """Return the entries of a metadata file; ValueError says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"filesystem_store_metadata_file {path} is not JSON: {exc}") from exc
    entries = content if isinstance(content, list) else [content]
    for entry in entries:
        problem = _problem(entry)
        if problem:
            raise ValueError(f"filesystem_store_metadata_file {path}: {problem}")
    return entries


def _problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "an entry is not an object"
    for key in ("id", "mountpoint"):
        if not isinstance(entry.get(key), str):
            return f"an entry lacks the string {key!r}"
    if not _all_text(entry):
        return "an entry has a value that is not a string, or a list or object of strings"
    return None


def _all_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_all_text(item) for item in value.values())
    if isinstance(value, list):
        return all(_all_text(item) for item in value)
    return isinstance(value, str)


def for_path(entries: list[Entry], path: str) -> Entry:
    """Return a copy of the first entry whose mount point contains a path, else an empty one."""
    normalized = os.path.normpath(path)
    for entry in entries:
        if is_within(normalized, os.path.normpath(entry["mountpoint"])):
            return dict(entry)
    LOG.error(
        "No mountpoint in filesystem_store_metadata_file contains %s: the image is stored "
        "without location metadata",
        path,
    )
    return {}
