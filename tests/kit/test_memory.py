# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the driver of the documentation, as it stands there."""

from __future__ import annotations

from tests.kit.examples import load

load("memory_store")
kit = load("test_memory_store")
TestMemoryStore = kit.TestMemoryStore
TestSingleStoreMode = kit.TestSingleStoreMode
