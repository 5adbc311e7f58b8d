# SPDX-License-Identifier: Apache-2.0
"""Images as objects of S3: the RADOS gateway, or Swift's s3api."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import ServerBed
from bench.beds.swift import PatientSwift
from bench.contenders import Contender, Workers
from bench.worker import MIB
from tests.services.radosgw import Radosgw

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from bench.environments import Environment
    from bench.model import Scenario
    from bench.worker import Measurement, Task

BOTO3 = "boto3"
BOTO3_HASHING = "boto3 + hashes"
# Those of the driver, unless configured.
THREADS = 10
PART = 10 * MIB


class S3Bed(ServerBed):
    """Two servers that speak S3; the scenario's place says which."""

    driver: ClassVar[str] = "s3"
    clients: ClassVar[tuple[str, ...]] = ("boto3",)

    def start(self, scenario: Scenario) -> None:
        if scenario.place == "swift":
            swift = self.service(PatientSwift)
            self._port, self._bucket = swift.port, swift.bucket
            self._keys = (swift.s3_access_key, swift.s3_secret_key)
        else:
            gateway = self.service(Radosgw)
            self._port, self._bucket = gateway.port, gateway.bucket
            self._keys = (gateway.access_key, gateway.secret_key)

    def port(self, scenario: Scenario) -> int:
        return self._port

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        options = {
            "s3_store_host": f"http://127.0.0.1:{self._port}",
            "s3_store_access_key": self._keys[0],
            "s3_store_secret_key": self._keys[1],
            "s3_store_bucket": self._bucket,
            "s3_store_create_bucket_on_put": True,
            "s3_store_bucket_url_format": "path",
        }
        own = scenario.task.options if scenario.task else {}
        return {"driver": self.driver, "options": {**options, **own}}

    def rivals(
        self,
        scenario: Scenario,
        task: Task,
        images: Path,
        environment: Environment,
        stack: contextlib.ExitStack,
    ) -> dict[str, Contender]:
        common = {
            "host": f"http://127.0.0.1:{self._port}",
            "access_key": self._keys[0],
            "secret_key": self._keys[1],
            "bucket": self._bucket,
            "threads": THREADS,
            "part": PART,
        }
        found = {}
        for label, hashing in {BOTO3: False, BOTO3_HASHING: True}.items():
            options = {**common, "hashing": hashing}
            # The image that it reads is its own as well.
            changed = dataclasses.replace(task, driver="boto3", prefix="boto3", options=options)
            found[label] = self._rival(scenario, changed, environment, stack)
        return found

    def _rival(
        self,
        scenario: Scenario,
        task: Task,
        environment: Environment,
        stack: contextlib.ExitStack,
    ) -> Contender:
        workers = Workers()
        locations: list[str] = []

        def prepare() -> None:
            if task.operation == "read":
                put = dataclasses.replace(task, operation="put")
                locations.extend(workers.call(environment, put))
                remove = dataclasses.replace(task, operation="remove", locations=locations)
                stack.callback(workers.call, environment, remove)

        def measure() -> Measurement:
            found = dataclasses.replace(task, locations=locations)
            return workers.measure(environment, self.linked(scenario, found))

        return Contender(measure, prepare)
