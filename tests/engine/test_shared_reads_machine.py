# SPDX-License-Identifier: Apache-2.0
"""Readers, deletions, evictions and accidents in any order: each download gets the right bytes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from glance_store.transfer.download import Download
from glance_store.transfer.shared_files import CHUNK, MIB
from glance_store.transfer.shared_folder import Folder
from glance_store.transfer.shared_reads import SharedDownload, SharedReads

from .memory import MemoryReader, engine_threads, eventually

# Bytes of images: less than a chunk, some chunks, and one that ends with zeros.
SIZES = (CHUNK - MIB, 2 * CHUNK, 2 * CHUNK + 5)
LIMIT = 4 * CHUNK + MIB
PLACES = st.integers(0, len(SIZES) - 1)
PARTS = st.integers(0, 2 * CHUNK)


def image(place: int, version: int) -> bytes:
    """Return bytes that no other image or version has at the same place."""
    unit = bytes([place + 1, version % 251 + 1]) * 512
    data = unit * (SIZES[place] // len(unit) + 1)
    return data[: SIZES[place] - MIB] + bytes(MIB)


class Sharing(RuleBasedStateMachine):
    """Two processes' worth of stores on one directory."""

    downloads = Bundle("downloads")

    def __init__(self) -> None:
        super().__init__()
        self.path = tempfile.mkdtemp()
        self.stores = [SharedReads(Folder(self.path, LIMIT), MIB) for _process in range(2)]
        self.versions = [0] * len(SIZES)

    def teardown(self) -> None:
        assert eventually(lambda: not engine_threads())
        shutil.rmtree(self.path)

    def files(self) -> list[Path]:
        return sorted(Path(self.path).glob("*.image"))

    def open(
        self, store: int, place: int, offset: int, length: int | None
    ) -> SharedDownload | Download:
        version = self.versions[place]

        def opened(_offset: int, _length: int) -> MemoryReader:
            reader = MemoryReader(image(place, version))
            reader.version = str(version)  # type: ignore[attr-defined]
            return reader

        reader = opened(0, 0)
        found = self.stores[store].download(
            reader, f"place {place}", opened, offset, length, 4 * MIB
        )
        return found or Download(reader, offset, length, 4 * MIB)

    @rule(store=st.integers(0, 1), place=PLACES)
    def read(self, store: int, place: int) -> None:
        """Read one image."""
        data = b"".join(self.open(store, place, 0, None))
        assert data == image(place, self.versions[place])

    def read_all(self) -> None:
        for place in range(len(SIZES)):
            self.read(0, place)

    @rule(store=st.integers(0, 1), place=PLACES, offset=PARTS, length=PARTS.filter(bool))
    def read_a_range(self, store: int, place: int, offset: int, length: int) -> None:
        data = b"".join(self.open(store, place, offset, length))
        assert data == image(place, self.versions[place])[offset : offset + length]

    @rule(target=downloads, store=st.integers(0, 1), place=PLACES)
    def begin(self, store: int, place: int) -> tuple[SharedDownload | Download, bytes, bytes]:
        found = self.open(store, place, 0, None)
        return found, next(found), image(place, self.versions[place])

    @rule(target=downloads, begun=consumes(downloads))
    def go_on(self, begun: tuple[SharedDownload | Download, bytes, bytes]) -> object:
        found, data, expected = begun
        chunk = next(found, None)
        if chunk is None:
            assert data == expected
            return multiple()
        assert expected.startswith(data + chunk)
        return found, data + chunk, expected

    @rule(begun=consumes(downloads))
    def give_up(self, begun: tuple[SharedDownload | Download, bytes, bytes]) -> None:
        begun[0].close()

    @rule(place=PLACES)
    def replace(self, place: int) -> None:
        self.versions[place] += 1

    @rule(store=st.integers(0, 1), place=PLACES)
    def delete(self, store: int, place: int) -> None:
        self.stores[store].folder.forget(f"place {place}")

    @rule(number=st.integers(0), at=st.floats(0, 1, exclude_max=True))
    def damage(self, number: int, at: float) -> None:
        if files := self.files():
            with files[number % len(files)].open("r+b") as file:
                # 0 for a file that was cut to nothing.
                position = int(at * os.fstat(file.fileno()).st_size)
                file.seek(position)
                byte = file.read(1) or b"\0"
                file.seek(position)
                file.write(bytes([byte[0] ^ 0x10]))
        self.read_all()

    @rule(number=st.integers(0), at=st.floats(0, 1, exclude_max=True))
    def cut_short(self, number: int, at: float) -> None:
        if files := self.files():
            path = files[number % len(files)]
            os.truncate(path, int(at * path.stat().st_size))
        self.read_all()

    @rule(what=st.sampled_from([b"", bytes(20), None]))
    def lose_the_index(self, what: bytes | None) -> None:
        index = Path(self.path) / "index"
        if what is None:
            index.unlink(missing_ok=True)
        else:
            index.write_bytes(what)

    @invariant()
    def room_is_bounded(self) -> None:
        # What a reader holds open after its removal is nobody's room any more.
        assert self.stores[0].folder.usage().used <= LIMIT + MIB


def test_any_order() -> None:
    run_state_machine_as_test(
        Sharing,
        # To make an example shorter takes minutes: each chunk has 8 MiB.
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
        ),
    )
