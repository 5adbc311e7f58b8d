# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: the tests that every built-in driver passes, for any driver.

It needs pytest, and hypothesis for one test. Subclass `StoreConformance` in a test file:

.. code-block:: python

    class TestMyDriver(StoreConformance):
        @pytest.fixture
        def backend(self, tmp_path):
            self.folder = tmp_path

        def make_store(self):
            conf = cfg.ConfigOpts()
            store = my_driver.Store(conf, "mine")
            conf.set_override("my_driver_folder", str(self.folder), group="mine")
            store.configure(re_raise_bsc=True)
            return store

        def listing(self):
            return os.listdir(self.folder)

Tests of capabilities that the store lacks are skipped, with the reason. A class that tests another
configuration of the driver sets `Kit.variant`. With the pytest plugin
`glance_store.testing.selection` it then runs only the tests that this configuration can affect.
"""

from __future__ import annotations

import pytest

_MODULES = (
    "concurrency",
    "copies",
    "failures",
    "faults",
    "hashes",
    "holdings",
    "inputs",
    "kit",
    "lifecycle",
    "locations",
    "machine",
    "ranges",
    "round_trips",
    "secrets",
    "selection",
    "sources",
    "sparse",
    "stateful",
    "watch",
)
# Let failing assertions show their values, as in a test file.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

# ruff: noqa: E402 - modules imported before the call above are not rewritten

from glance_store.testing.concurrency import Concurrency
from glance_store.testing.copies import Copies
from glance_store.testing.failures import Failures
from glance_store.testing.faults import Faults
from glance_store.testing.hashes import Hashes
from glance_store.testing.holdings import Holdings
from glance_store.testing.inputs import image
from glance_store.testing.kit import Kit, needs, touches
from glance_store.testing.lifecycle import Lifecycle
from glance_store.testing.locations import Locations
from glance_store.testing.ranges import Ranges
from glance_store.testing.round_trips import RoundTrips
from glance_store.testing.secrets import Secrets
from glance_store.testing.sources import Sources
from glance_store.testing.sparse import Sparse
from glance_store.testing.stateful import Stateful

__all__ = ["Kit", "StoreConformance", "image", "needs", "touches"]


class StoreConformance(
    RoundTrips,
    Sources,
    Hashes,
    Ranges,
    Sparse,
    Locations,
    Lifecycle,
    Failures,
    Faults,
    Concurrency,
    Secrets,
    Holdings,
    Copies,
    Stateful,
):
    """All tests of the kit; see `Kit` for what a subclass defines."""
