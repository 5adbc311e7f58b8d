# SPDX-License-Identifier: Apache-2.0
"""What the tests know about images: their content, and their rows in Glance's database."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .server import GlanceServer

MIB = 1 << 20
# Larger than every block and chunk size in play, and a multiple of none.
IMAGE_SIZE = 3 * MIB + 4711


def image_bytes(seed: str, size: int = IMAGE_SIZE) -> bytes:
    """Return the content of an image: the same for the same seed, and compressible by nobody."""
    return random.Random(seed).randbytes(size)


def pieces(data: bytes, length: int = 100_003) -> Iterator[bytes]:
    """Yield data in pieces, so that it is sent without its length being known."""
    for start in range(0, len(data), length):
        yield data[start : start + length]


def location_rows(server: GlanceServer, image_id: str) -> list[tuple[str, dict[str, str]]]:
    """Return URL and metadata of an image's live locations, as they are in the database.

    Glance repairs the metadata on every GET of an image: only a look past its API, and before the
    first GET, shows what the library returned.
    """
    rows = server.rows(
        "SELECT value, meta_data FROM image_locations"
        " WHERE image_id = ? AND deleted = 0 AND status = 'active' ORDER BY id",
        (image_id,),
    )
    return [(row["value"], json.loads(row["meta_data"] or "{}")) for row in rows]


def file_url(server: GlanceServer, store: str, image_id: str) -> str:
    """Return the location of an image in one of the file stores."""
    return f"file://{server.datadir(store) / image_id}"
