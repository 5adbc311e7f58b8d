# SPDX-License-Identifier: Apache-2.0
"""The Glances that the same tests run on: each with stores of another kind."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.fixtures import client_module
from tests.services.sharing import process_name

from .client import GlanceClient
from .configuration import merged
from .images import MIB
from .server import Surroundings
from .stores.cinder import CinderStore, Volumes
from .stores.file import FileStore
from .stores.rbd import CephPool, RbdStore
from .stores.s3 import S3Store, s3_client
from .stores.swift import SwiftAccount, swift_store_by_options, swift_store_by_reference
from .stores.vmware import VMwareStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .configuration import Options
    from .server import GlanceServer
    from .stores.base import StoreUnderTest

SIZE_CAP = 12 * MIB

# With the rights of the process itself, which is root or does not mount anything.
ATTACH_WITHOUT_SUDO = """\
import os_brick.privileged

os_brick.privileged.default.set_client_mode(False)
"""


@dataclass(frozen=True)
class Kind:
    """Stores of one driver, and what a Glance needs for them.

    :ivar name: of the kind
    :ivar stores: two of them; none: those of files, which every Glance has
    :ivar surroundings: what the processes of the Glance find
    :ivar parallel: how many images at once a test may ask for
    """

    name: str
    stores: tuple[StoreUnderTest, ...] = ()
    surroundings: Surroundings | None = None
    parallel: int = 8

    @property
    def size_cap(self) -> int | None:
        """The largest image that the Glance of most tests takes; nothing: any."""
        return SIZE_CAP if self.stores else None

    def arguments(self, options: Options | None = None) -> dict[str, Any]:
        """Return with which arguments a Glance has these stores.

        :param options: further changes to its options, by section and name
        """
        changed: Options = {}
        if self.stores:
            enabled = [f"{store.name}:{store.driver}" for store in self.stores]
            changed = {
                "DEFAULT": {
                    "enabled_backends": ", ".join([*enabled, "slow:file", "web:http"]),
                    "image_size_cap": str(SIZE_CAP),
                },
                "glance_store": {"default_backend": self.stores[0].name},
                **{store.name: store.options for store in self.stores},
            }
        return {"options": merged(changed, options or {}), "surroundings": self.surroundings}


class Scene:
    """A Glance, an administrator of it, and its stores.

    :ivar default: the store that images go to by default
    :ivar named: another one of its kind
    :ivar files: a store of files
    """

    def __init__(self, kind: Kind, glance: GlanceServer) -> None:
        self.kind = kind
        self.glance = glance
        self.client = GlanceClient(glance.url)
        self.files: StoreUnderTest = FileStore("slow", glance)
        self.default, self.named = kind.stores or (FileStore("fast", glance), self.files)

    @property
    def stores(self) -> dict[str, StoreUnderTest]:
        """All stores that can be written, by their names."""
        return {store.name: store for store in (self.default, self.named, self.files)}

    def store(self, which: str) -> StoreUnderTest:
        """Return the store `default` or `named`."""
        return {"default": self.default, "named": self.named}[which]

    def everything(self) -> list[str]:
        """Return a name for everything in every store, be it finished or not."""
        found = [
            f"{name}: {entry}"
            for name, store in self.stores.items()
            for entry in store.everything()
        ]
        return found + [f"staged: {name}" for name in self.glance.staged()]


@contextlib.contextmanager
def _files(request: pytest.FixtureRequest) -> Iterator[Kind]:
    yield Kind("file")


@contextlib.contextmanager
def _rbd(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """A store on a replicated pool, and one whose data is in an erasure-coded pool."""
    ceph = request.getfixturevalue("ceph")
    coded = f"coded-{process_name()}"
    ceph.add_pool(coded)
    with (
        contextlib.closing(CephPool(ceph.conf, ceph.user, ceph.pool)) as pool,
        contextlib.closing(CephPool(ceph.conf, coded, coded)) as headers,
    ):
        yield Kind(
            "rbd",
            (RbdStore("ceph", ceph, pool), RbdStore("coded", ceph, headers, coded=True)),
            Surroundings(modules=(ceph.bindings(),)),
        )


@contextlib.contextmanager
def _s3(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Two buckets of one server."""
    client_module("boto3", "s3")
    radosgw = request.getfixturevalue("radosgw")
    with contextlib.closing(s3_client(radosgw)) as client:
        yield Kind(
            "s3",
            (
                S3Store("objects", radosgw, client, f"glance-objects-{process_name()}", threads=4),
                S3Store("others", radosgw, client, f"glance-others-{process_name()}", threads=1),
            ),
        )


@contextlib.contextmanager
def _swift(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Two containers of the service user: credentials by options, and by a file of references."""
    swift = request.getfixturevalue("swift")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("swift-references")
    with contextlib.closing(SwiftAccount(swift, "glance")) as account:
        yield Kind(
            "swift",
            (
                swift_store_by_options("swift", swift, account),
                swift_store_by_reference("referenced", swift, account, folder),
            ),
        )


@contextlib.contextmanager
def _cinder(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Volumes that attach once, and volumes that attach as often as one likes."""
    cinder = request.getfixturevalue("cinder")
    ceph = request.getfixturevalue("ceph")
    with (
        contextlib.closing(CephPool(ceph.conf, "admin", "volumes")) as pool,
        contextlib.closing(Volumes(cinder)) as volumes,
    ):
        yield Kind(
            "cinder",
            (
                CinderStore("volumes", cinder, "plain", volumes, pool),
                CinderStore("shared", cinder, "multi", volumes, pool),
            ),
            Surroundings(
                modules=(ceph.bindings(),),
                programs=(cinder.mount_folder,),
                site=ATTACH_WITHOUT_SUDO,
            ),
            parallel=3,
        )


@contextlib.contextmanager
def _vmware(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """A datastore each."""
    vcenter = request.getfixturevalue("vcenter")
    first, second = vcenter.datastores
    yield Kind(
        "vmware",
        (VMwareStore("datastore", vcenter, first), VMwareStore("another", vcenter, second)),
    )


_BUILDERS: dict[str, Callable[[pytest.FixtureRequest], contextlib.AbstractContextManager[Kind]]] = {
    "file": _files,
    "rbd": _rbd,
    "s3": _s3,
    "swift": _swift,
    "cinder": _cinder,
    "vmware": _vmware,
}


def _kind(name: str) -> Any:
    return pytest.param(name, marks=[] if name == "file" else pytest.mark.services)


ALL_KINDS = [_kind(name) for name in _BUILDERS]


def kind_of(name: str, request: pytest.FixtureRequest) -> contextlib.AbstractContextManager[Kind]:
    """Return the stores of a kind, with their servers.

    :param name: of the kind
    :param request: of a fixture that lasts as long as they shall
    """
    return _BUILDERS[name](request)


def kinds(*names: str) -> pytest.MarkDecorator:
    """Run a test with the stores of some kinds alone."""
    return pytest.mark.parametrize("scene", [_kind(name) for name in names], indirect=True)


# Stores of files are quick: they get every combination of arguments, real servers fewer.
FILES_ALONE = pytest.mark.files_alone


def is_wanted(item: pytest.Item) -> bool:
    """Tell whether a test is one of those that shall run."""
    values = getattr(item, "callspec", None)
    return (
        values is None
        or item.get_closest_marker("files_alone") is None
        or values.params.get("scene") == "file"
    )
