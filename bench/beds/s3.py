# SPDX-License-Identifier: Apache-2.0
"""Images as objects of S3: the RADOS gateway, or Swift's s3api."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import ServerBed
from bench.beds.swift import PatientSwift
from bench.contenders import Contender, Workers
from bench.worker import MIB
from tests.services.base import free_port
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


class TlsRadosgw(Radosgw):
    """A gateway that takes encrypted connections as well, with a certificate of its own."""

    name = "radosgw-tls"
    bucket = "images-tls"

    def __init__(self) -> None:
        super().__init__()
        # Both gateways are of one cluster, which knows the user of the other one.
        self.user = "glance-tls"
        self.swift_user = f"{self.user}:swift"
        self.access_key = "glance-tls-access"

    def frontends(self, folder: Path) -> str:
        self.tls_port = free_port()
        self.authority = folder / "certificate.pem"
        key = folder / "key.pem"
        subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        files = ["-keyout", str(key), "-out", str(self.authority)]
        subprocess.run([*new, *files], check=True, capture_output=True)
        plain = super().frontends(folder)
        secure = f"ssl_endpoint=127.0.0.1:{self.tls_port} ssl_private_key={key}"
        return f"{plain} {secure} ssl_certificate={self.authority}"


class S3Bed(ServerBed):
    """Servers that speak S3; the scenario's place says which."""

    driver: ClassVar[str] = "s3"
    clients: ClassVar[tuple[str, ...]] = ("boto3",)

    def start(self, scenario: Scenario) -> None:
        self._authority = ""
        if scenario.place == "radosgw-tls":
            secure = self.service(TlsRadosgw)
            self._port, self._bucket = secure.tls_port, secure.bucket
            self._keys = (secure.access_key, secure.secret_key)
            self._authority = str(secure.authority)
        elif scenario.place == "swift":
            swift = self.service(PatientSwift)
            self._port, self._bucket = swift.port, swift.bucket
            self._keys = (swift.s3_access_key, swift.s3_secret_key)
        else:
            gateway = self.service(Radosgw)
            self._port, self._bucket = gateway.port, gateway.bucket
            self._keys = (gateway.access_key, gateway.secret_key)
        self._url = f"{'https' if self._authority else 'http'}://127.0.0.1:{self._port}"

    def port(self, scenario: Scenario) -> int:
        return self._port

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        options = {
            "s3_store_host": self._url,
            "s3_store_cacert": self._authority,
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
