# SPDX-License-Identifier: Apache-2.0
"""A vCenter: govmomi's simulator, with a small program of these tests around it."""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from tests.services.base import CACHE, Lab, Service, Unavailable
from tests.services.conf_text import conf_text
from tests.services.environments import debian_packages, locked

PROGRAM = Path(__file__).parent / "programs" / "vcenter"
PACKAGES = ("golang-go", "golang-github-vmware-govmomi-dev", "golang-github-google-uuid-dev")
LIBRARIES = Path("/usr/share/gocode")
# The option of the store takes no port.
PORT = 443


class VCenter(Service):
    """A vCenter with one datacenter and two datastores, which are plain directories."""

    name = "vcenter"
    stores: ClassVar[dict[str, str]] = {"vmware": "vmware"}

    user = "glance"
    password = "vcenter-secret"
    datacenter = "DC0"
    datastores = ("ds1", "ds two")
    directory = "openstack_glance"

    def __init__(self) -> None:
        super().__init__()
        self.host = ""
        self._program = Path()

    def install(self) -> None:
        govmomi = LIBRARIES / "src/github.com/vmware/govmomi"
        debian_packages(*PACKAGES, probe=("go", str(govmomi)))
        digest = hashlib.sha256()
        for source in sorted(PROGRAM.glob("*.go")):
            digest.update(source.read_bytes())
        place = CACHE / f"vcenter-{digest.hexdigest()[:12]}"
        self._program = place / "vcenter"
        with locked(self.name):
            if not self._program.exists():
                _build(place)

    def start(self, folder: Path, lab: Lab) -> None:
        self.host = _free_host()
        self._make_certificate(folder)
        self.run(
            [
                self._program,
                *("-state", folder),
                *("-listen", f"{self.host}:{PORT}"),
                *("-user", self.user, "-password", self.password),
                *("-datastores", ",".join(self.datastores)),
            ]
        )
        self.wait((folder / "url").exists, "its address")

    def _make_certificate(self, folder: Path) -> None:
        import trustme

        ca = trustme.CA()
        # Sent and looked at by clients whose clocks differ.
        made = ca.issue_cert(
            self.host, not_after=datetime.datetime.now() + datetime.timedelta(days=30)
        )
        ca.cert_pem.write_to_path(folder / "ca.pem")
        made.private_key_pem.write_to_path(folder / "key.pem")
        for part in made.cert_chain_pems:
            part.write_to_path(folder / "cert.pem", append=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://{self.host}"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that has signed the server's."""
        assert self.folder is not None
        return self.folder / "ca.pem"

    def folder_of(self, datastore: str) -> Path:
        """Return the directory that is a datastore."""
        assert self.folder is not None
        return self.folder / "datastores" / datastore

    def files(self) -> list[Path]:
        """Return everything that the datastores hold."""
        return [
            path.relative_to(self.folder_of(name).parent)
            for name in self.datastores
            for path in self.folder_of(name).rglob("*")
            if not path.is_dir()
        ]

    def empty(self) -> None:
        """Remove everything from the datastores."""
        for name in self.datastores:
            for path in self.folder_of(name).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def trouble(self, verb: str, **values: object) -> str:
        """Have the server behave in another way; see the head of the program.

        :param verb: such as ``fault``
        :param values: of the query
        :returns: the answer
        """
        context = ssl.create_default_context(cafile=str(self.authority))
        query = urllib.parse.urlencode(values)
        request = f"{self.url}/lab/{verb}?{query}"
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def requests(self) -> list[str]:
        """Return the lines that it has logged, one for each request."""
        assert self.folder is not None
        (log,) = self.folder.glob("*.log")
        return [line for line in log.read_text().splitlines() if " /lab/" not in line]

    def facts(self) -> dict[str, str]:
        return {
            "url": self.url,
            "user": self.user,
            "password": self.password,
            "datastores": ", ".join(f"{self.datacenter}:{name}" for name in self.datastores),
            "authority": str(self.authority),
        }

    def store_options(self) -> dict[str, Any]:
        """Return the options of a store."""
        return {
            "vmware_server_host": self.host,
            "vmware_server_username": self.user,
            "vmware_server_password": self.password,
            "vmware_ca_file": str(self.authority),
            "vmware_datastores": [f"{self.datacenter}:{name}" for name in self.datastores],
        }

    def glance_conf(self) -> str:
        options = self.store_options()
        # An option that is given many times.
        first, *_others = options.pop("vmware_datastores")
        return conf_text({"vmware": {**options, "vmware_datastores": first}})


class Requests:
    """Fails requests by their numbers, as the conformance kit wants it.

    :param server: that is asked
    """

    def __init__(self, server: VCenter) -> None:
        self._server = server

    def each_request(self, operation: Callable[[], object]) -> Iterator[int]:
        """Run an operation, then yield the number of each of its requests."""
        self.clear()
        operation()
        count = int(self._server.trouble("count"))
        assert count, "the operation sent no request"
        for number in range(1, count + 1):
            self.clear()
            yield number
        self.clear()

    def fail_request(self, number: int, status: int, *, times: int | None) -> None:
        """Have a request answered with an error, and its repetitions."""
        self._server.trouble(
            "fail", number=number, status=status, times=-1 if times is None else times
        )

    def clear(self) -> None:
        """Let all requests pass again, and count from 1."""
        self._server.trouble("clear")


def _build(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    sources = place / "src" / "vcenter"
    sources.mkdir(parents=True)
    for source in PROGRAM.glob("*.go"):
        shutil.copy(source, sources)
    settings = {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": f"{place}:{LIBRARIES}",
        "GOCACHE": str(CACHE / "go-build"),
        "CGO_ENABLED": "0",
    }
    done = subprocess.run(
        ["go", "build", "-o", place / "vcenter", "."],
        cwd=sources,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"vcenter cannot be built: {done.stderr.strip()[-500:]}")


def _free_host() -> str:
    """Return an address of loopback on which nobody listens at the port of vCenters."""
    for _try in range(100):
        host = f"127.{57 + secrets.randbelow(100)}.{secrets.randbelow(250)}.1"
        with socket.socket() as probe:
            try:
                probe.bind((host, PORT))
            except PermissionError as exc:
                raise Unavailable(f"vcenter needs a user who may listen on port {PORT}") from exc
            except OSError:
                continue
            return host
    raise Unavailable("vcenter: no address of loopback is free")
