# SPDX-License-Identifier: Apache-2.0
"""Test beds: where the images of each driver go."""

from __future__ import annotations

import importlib

from bench.beds.base import Bed, UnusableError

__all__ = ["Bed", "UnusableError", "bed"]

_KINDS = {
    "file": "bench.beds.file:FileBed",
    "rbd": "bench.beds.rbd:RbdBed",
    "s3": "bench.beds.s3:S3Bed",
    "swift": "bench.beds.swift:SwiftBed",
    "cinder": "bench.beds.cinder:CinderBed",
    "vmware": "bench.beds.vmware:VMwareBed",
}


def bed(driver: str) -> Bed:
    """Return the test bed of a driver; what it needs is imported now, and started later."""
    module, _colon, name = _KINDS[driver].partition(":")
    made: Bed = getattr(importlib.import_module(module), name)()
    return made
