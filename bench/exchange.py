# SPDX-License-Identifier: Apache-2.0
"""Images that one release has stored, in the hands of the other: nothing is measured.

What the reference has stored is read, sized and deleted by this repository, which is what happens
to every image of a cloud on the day of the upgrade. What this repository has stored is read, sized
and deleted by the reference: during a rolling upgrade, and after going back to the older release.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contenders import MeasurementError, Workers
from bench.model import Scenario
from bench.worker import MIB, GeneratedSource, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.beds.base import Bed
    from bench.environments import Environment

# The unit of Swift's options for sizes.
_MEGABYTE = 1000 * 1024
_S3_PARTS = {"s3_store_large_object_size": 5, "s3_store_large_object_chunk_size": 5}
_SEGMENTS = {"swift_store_large_object_size": 2, "swift_store_large_object_chunk_size": 1}
_TENANT = {"swift_store_multi_tenant": True}


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of stored image: its bytes, the options that make it, and where it goes.

    ``file_of_references``: the account of Swift comes from a file, not from options.
    """

    title: str
    size: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: str = "tmpfs"
    file_of_references: bool = False


# The reference stores no images in segments of Swift whose size is not a multiple of theirs.
CASES: dict[str, tuple[Case, ...]] = {
    "file": (
        Case("plain", 3 * MIB + 7),
        Case("sparse", 3 * MIB + 7, {"filesystem_thin_provisioning": True}),
    ),
    "rbd": (
        Case("plain", 20 * MIB + 512, place="ceph"),
        Case("thin", 20 * MIB + 512, {"rbd_thin_provisioning": True}, place="ceph"),
    ),
    "s3": (
        Case("one request, RADOS gateway", MIB + 7, place="radosgw"),
        Case("parts, RADOS gateway", 12 * MIB + 7, _S3_PARTS, place="radosgw"),
        Case("one request, s3api", MIB + 7, place="swift"),
        Case("parts, s3api", 12 * MIB + 7, _S3_PARTS, place="swift"),
    ),
    "swift": (
        Case("one request", MIB + 7, place="swift"),
        Case("segments", 5 * _MEGABYTE, _SEGMENTS, place="swift"),
        Case("one request, references", MIB + 7, place="swift", file_of_references=True),
        Case("segments, references", 5 * _MEGABYTE, _SEGMENTS, "swift", file_of_references=True),
        Case("one request, multi tenant", MIB + 7, _TENANT, place="swift"),
        Case("segments, multi tenant", 5 * _MEGABYTE, {**_TENANT, **_SEGMENTS}, place="swift"),
    ),
    "cinder": (Case("volume", 3 * MIB + 512, place="cinder"),),
    "vmware": (Case("file", 3 * MIB + 7, place="vcenter"),),
}


def exchange(bed: Bed, reference: Environment, current: Environment) -> bool:
    """Store, read and delete each kind of image, and print a line for each; tell whether all went.

    :param bed: started here with what each kind needs
    :param reference: the environment with the reference release
    :param current: the environment with this repository
    """
    print(f"   {'image':<28}{'stored by reference':<24}stored by current")
    failures = []
    for case in CASES[bed.driver]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            task = _task(bed, case, Path(folder))
            words = []
            for writer, reader in ((reference, current), (current, reference)):
                try:
                    _pass(Workers(bed.variables()), task, writer, reader, current)
                except MeasurementError as error:
                    words.append("FAILED")
                    failures.append(f"{case.title}, stored by {writer.version}: {error}")
                else:
                    words.append("read, deleted")
        print(f"   {case.title:<28}{words[0]:<24}{words[1]}", flush=True)
    for failure in failures:
        print(f"   {failure}")
    return not failures


def _task(bed: Bed, case: Case, folder: Path) -> Task:
    task = Task("put", case.size, source="generated", options=case.options)
    scenario = Scenario("exchange", case.title, task, place=case.place)
    bed.start(scenario)
    task = dataclasses.replace(task, **bed.basis(scenario, folder))
    if case.file_of_references:
        task = dataclasses.replace(task, options=_with_references(task.options, folder))
    return task


def _with_references(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    moved = {
        name: options.pop(f"swift_store_{name}")
        for name in ("user", "key", "auth_address", "auth_version")
    }
    moved.update(project_domain_id="default", user_domain_id="default")
    lines = [f"{name} = {value}" for name, value in moved.items()]
    file = folder / "references.conf"
    file.write_text("\n".join(["[here]", *lines, ""]))
    return {
        **options,
        "swift_store_config_file": str(file),
        "default_swift_reference": "here",
    }


def _pass(
    workers: Workers, task: Task, writer: Environment, reader: Environment, judge: Environment
) -> None:
    task = dataclasses.replace(task, prefix=str(uuid.uuid4()))
    locations: Sequence[str] = workers.call(writer, task)
    found = dataclasses.replace(task, operation="check", locations=locations)
    told = workers.call(reader, found)
    expected = [_expected(task.size, index) for index in range(task.count)]
    if told != expected:
        raise MeasurementError(f"{reader.version} has read {told}, not {expected}")
    workers.call(reader, dataclasses.replace(found, operation="remove"))
    # Not every driver of the reference tells a missing image from other errors.
    gone = workers.call(judge, dataclasses.replace(found, operation="gone"))
    if not all(gone):
        raise MeasurementError(f"{reader.version} has deleted it, and it is still there")


def _expected(size: int, index: int) -> list[Any]:
    return [size, hashlib.sha256(GeneratedSource(size, seed=index).read()).hexdigest()]
