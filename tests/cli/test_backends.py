# SPDX-License-Identifier: Apache-2.0
"""Each real backend: what damage `check` tells, and what killed uploads leave to `gc`.

``GLANCE_STORE_CHECKED_IMAGES=1000`` and ``GLANCE_STORE_KILLED_UPLOADS=30`` in the environment are
campaigns of that many images, and of that many kills beside four living uploads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import os
import random
import subprocess
import threading
import time
import uuid

import pytest

from glance_store import exceptions, registry
from glance_store._drivers.cinder import holdings
from glance_store.inventory import COMPLETE
from tests.waiting import until

from .backends import KINDS, backend_of
from .command import MIB, Command
from .test_check import as_lines, record

pytestmark = pytest.mark.services

IMAGES = int(os.environ.get("GLANCE_STORE_CHECKED_IMAGES", "8"))
# Images damaged in each of five ways.
EACH = max(1, IMAGES // 250)
KILLS = int(os.environ.get("GLANCE_STORE_KILLED_UPLOADS", "2"))
# Beside a few kills one living upload is enough.
LIVING = 4 if KILLS > 2 else 1
# Bytes of a second of a living upload; a part of S3 takes some seconds.
RATE = 2 * MIB
# What a server that removes in its own time may take.
LASTS = 120.0


@pytest.fixture(params=KINDS)
def backend(request, tmp_path):
    return backend_of(request.param, request, tmp_path)


@pytest.fixture
def config(backend):
    return backend.config


@pytest.fixture
def store(backend, run):
    """The store of the backend, emptied before and after."""
    run("stores")
    (found,) = (store for name, _driver, store in registry.stores() if name == backend.name)
    _empty(backend, found)
    yield found
    _empty(backend, found)


def _empty(backend, store):
    def is_empty():
        # A container or a bucket need not be there yet.
        with contextlib.suppress(exceptions.NotFound):
            there = list(store.images())
            # Tests before this one have killed clients, too.
            backend.forget([one.image_id for one in there])
            for one in there:
                if one.state == COMPLETE:
                    with contextlib.suppress(exceptions.InUseByStore):
                        store.delete(registry.located(one.uri, backend.name)[1])
            for left in store.leftovers(-60):
                with contextlib.suppress(exceptions.InUseByStore):
                    left.remove()
        return not backend.listing()

    until(is_empty, lambda: f"nothing is left: {backend.listing()}", LASTS, pause=0.2)


def test_damage(backend, store, run, tmp_path):
    """Each kind of it is told, and nothing else; nothing is changed."""

    def added(number):
        rng = random.Random(number)
        data, image_id = rng.randbytes(rng.choice((0, 1, 70_000))), str(uuid.uuid4())
        uri = store.add(image_id, io.BytesIO(data), len(data), "sha256")[0]
        return record(uri, image_id, data)

    with concurrent.futures.ThreadPoolExecutor(1 if IMAGES < 100 else 6) as pool:
        records = list(pool.map(added, range(IMAGES)))
    expect = tmp_path / "records"
    expect.write_bytes(as_lines(records))
    words = ("check", f"--expect={expect}", "--data")
    assert run(*words) == (0, [])
    chosen = random.Random(2).sample(records, 5 * EACH)
    missing, orphans, size, damaged, twice = (chosen[number::5] for number in range(5))
    for one in missing:
        store.delete(registry.located(one["location"], backend.name)[1])
    for one in size:
        one["size"] += 1
    for one in damaged:
        one["checksum"] = hashlib.md5(b"other").hexdigest()
    (tmp_path / "first").mkdir(exist_ok=True)
    for one in twice:
        (tmp_path / "first" / one["id"]).write_bytes(b"other")
    expect.write_bytes(as_lines([one for one in records if one not in orphans]))
    before = backend.listing()
    code, lines = run(*words)
    assert code == 1
    told = {
        "missing": missing,
        "orphan": orphans,
        "size": size,
        "damaged": size + damaged,
        "twice": twice,
    }
    assert sorted((one["problem"], one["id"]) for one in lines) == sorted(
        (problem, one["id"]) for problem, some in told.items() for one in some
    )
    assert backend.listing() == before


class Upload:
    """An upload from a pipe, in a process of its own."""

    def __init__(self, backend, rate):
        self.id = str(uuid.uuid4())
        self._rate = rate
        self.digest = hashlib.sha256()
        self.fed = 0
        self._end = threading.Event()
        words = ("put", "-", "--id", self.id, "--store", backend.name, "--quiet", "--json")
        self.process = Command(backend.config).start(
            *words,
            "--hash=sha256",
            stdin=subprocess.PIPE,
            env=backend.environment,
            stdout=subprocess.DEVNULL,
        )
        self._feeder = threading.Thread(target=self._feed)
        self._feeder.start()

    def _feed(self):
        # A process that was killed reads no more.
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            while not self._end.wait(MIB / self._rate):
                block = os.urandom(MIB)
                pipe.write(block)
                self.digest.update(block)
                self.fed += len(block)

    def end(self):
        """Let it complete; return its exit code."""
        self._end.set()
        self._feeder.join()
        return self.process.wait(LASTS)

    def kill(self):
        self.process.kill()
        self.end()


def test_leftovers(backend, store, monkeypatch):
    """Of uploads that were killed at any moment nothing stays, and those that live complete."""
    monkeypatch.setattr(holdings, "_RESERVATION_LASTS", 5.0)
    moments = random.Random(3)
    image = store.add(str(uuid.uuid4()), io.BytesIO(b"data"), 4, "sha256")[0]
    before = sorted(backend.listing())
    living = [Upload(backend, RATE) for _number in range(LIVING)]
    try:
        until(lambda: min(upload.fed for upload in living) > 6 * MIB, "uploads", LASTS)
        dead = []
        for _number in range(KILLS):
            dead.append(upload := Upload(backend, 32 * MIB))
            time.sleep(moments.uniform(0.3, 3.0))
            upload.kill()
        found = 0
        quiet_since = time.monotonic()

        def collected():
            nonlocal found, quiet_since
            backend.forget([upload.id for upload in dead])
            left = list(store.leftovers(backend.quiet))
            for one in left:
                assert not any(upload.id in one.name for upload in living)
                with contextlib.suppress(exceptions.InUseByStore):
                    one.remove()
                    found += 1
                quiet_since = time.monotonic()
            return not left and time.monotonic() - quiet_since > max(backend.quiet, 0) + 1

        until(collected, lambda: f"all is collected: {backend.listing()}", LASTS, pause=0.2)
        # The kernel removes a file that has no name yet.
        assert found or KILLS < 10 or backend.name == "last"
        codes = [upload.end() for upload in living]
    finally:
        for upload in living:
            upload.kill()
    assert codes == [0] * LIVING
    for upload in living:
        (uri,) = (one.uri for one in store.images() if one.image_id == upload.id)
        place = registry.located(uri, backend.name)[1]
        digest = hashlib.sha256()
        for chunk in store.get(place)[0]:
            digest.update(chunk)
        assert digest.digest() == upload.digest.digest()
        store.delete(place)
    assert b"".join(store.get(registry.located(image, backend.name)[1])[0]) == b"data"

    def clean():
        collected()
        return sorted(backend.listing()) == before

    until(clean, lambda: f"nothing more is there than {before}: {backend.listing()}", LASTS, 0.2)
