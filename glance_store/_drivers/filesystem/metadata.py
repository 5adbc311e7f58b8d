# SPDX-License-Identifier: Apache-2.0
"""The metadata file: on which storage the data directories lie, for other users of the same."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from glance_store._drivers.filesystem.mounts import is_within

LOG = logging.getLogger(__name__)

Entry = dict[str, Any]


def load(path: str) -> list[Entry]:
    """Return the entries of a metadata file.

    :param path: a JSON file with an object or a list of objects
    :raises OSError: it cannot be read
    :raises ValueError: it is not of this form; the text says what is wrong
    """
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
            return f"an entry lacks the text {key!r}"
    if not _all_text(entry):
        return "an entry has a value that is neither text nor a list or object of text"
    return None


def _all_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_all_text(item) for item in value.values())
    if isinstance(value, list):
        return all(_all_text(item) for item in value)
    return isinstance(value, str)


def for_path(entries: list[Entry], path: str) -> Entry:
    """Return a copy of the first entry whose mount point contains a path, else nothing.

    :param entries: from `load`
    :param path: path of an image file
    """
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
