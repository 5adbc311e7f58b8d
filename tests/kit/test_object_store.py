# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the second driver of the documentation, with all optional parts."""

from __future__ import annotations

from tests.kit.examples import load

load("memory_store")
load("object_store")
TestObjectStore = load("test_object_store").TestObjectStore
