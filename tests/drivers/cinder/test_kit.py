# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the Cinder driver: volumes on Ceph, with and without multiattach."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from glance_store.testing import StoreConformance
from tests.drivers.cinder.stores import Listing, Store, make_store
from tests.faults.proxy import FaultProxy
from tests.services.cinder import POOL

if TYPE_CHECKING:
    from tests.services.ceph import Ceph
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services


class TestCinder(StoreConformance):
    volume_type = "multi"
    block_size = Store.WRITE_CHUNKSIZE
    holes = True
    finds_killed_uploads = True
    # An operation takes about a second.
    random_sequences = 2
    secrets = ("glance-secret",)
    hostile_uris = (
        "cinder://somewhere/3A1E5D16-8B2C-4B3E-9E62-0A1F4C0B7A11",
        "cinder://3a1e5d16-8b2c-4b3e-9e62-0a1f4c0b7a11/../x",
        "cinder://x/3a1e5d168b2c4b3e9e620a1f4c0b7a11",
    )

    @pytest.fixture
    def backend(self, ceph: Ceph, cinder: Cinder) -> Iterator[None]:
        self.cinder, self.ceph = cinder, ceph
        self._listing = Listing(cinder)
        with FaultProxy("127.0.0.1", cinder.port, http=True) as self.proxy:
            yield

    def make_store(self) -> Any:
        return make_store(
            {
                **self.cinder.store_options(self.volume_type),
                "cinder_endpoint_template": f"http://{self.proxy.address}/v3/%(project_id)s",
                "cinder_http_retries": 1,
                # More threads of the kit than usual want one volume at the same time.
                "cinder_attachment_retry_attempts": 10,
            }
        )

    def listing(self) -> list[str]:
        return self._listing.all()

    def wait_until_dead(self) -> None:
        self.ceph.shut_out(POOL, [volume["id"] for volume in self._listing.volumes()])

    def between_tests(self) -> None:
        self._listing.remove_all()

    def held(self) -> Counter[str]:
        """Threads and files that belong to the driver: those of librados end a little later."""
        names = [thread.name for thread in threading.enumerate()]
        held = Counter(threads=sum(name.startswith("glance_store") for name in names))
        held["attachments"] = len(self._listing.attachments())
        held["descriptors"] = len(os.listdir("/proc/self/fd"))
        return held


class TestCinderOfSingleAttachment(TestCinder):
    """One reader has to wait for the other. The volumes and the requests for them are the same."""

    variant = ("locking",)
    volume_type = "plain"
