# SPDX-License-Identifier: Apache-2.0
"""What the processes of this host share: locks, and lists of who uses a device or a mount.

Both are files, so that they hold for all workers and all users of the image service. What a killed
process has left in a list does not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from glance_store._drivers.cinder import errors
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

_POLL = 0.02
_LONGEST_POLL = 0.5


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process began, in the kernel's words; nothing if there is no such process."""
    # The name of the program, in brackets, may contain spaces.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _this_world() -> list[str]:
    """Return what tells process ids of different machines, containers and reboots apart."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return [_read("/proc/sys/kernel/random/boot_id"), namespace]


def _is_alive(entry: dict[str, Any]) -> bool:
    boot, namespace = _this_world()
    if entry["boot"] != boot:
        return False
    if entry["namespace"] != namespace:
        # A process of another container cannot be seen from here: it is believed.
        return True
    return bool(entry["started"]) and _started(entry["pid"]) == entry["started"]


@contextlib.contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Hold a lock among all threads and processes of this host.

    :param path: of the lock's file
    :param seconds: how long to wait for it
    :raises CinderTimeout: another process keeps it
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(file, path, seconds)
        try:
            yield
        finally:
            # Not left to close(): a process that was forked meanwhile has the file open as well.
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def _acquire(file: int, path: str, seconds: float) -> None:
    deadline, pause = time.monotonic() + seconds, _POLL
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise errors.CinderTimeout(
                    _(
                        "Another process of this host has held %(path)s for %(timeout)s seconds: "
                        "it may hang in an attachment or a mount"
                    ),
                    path=path,
                    timeout=seconds,
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL)


class Users:
    """A list of attachments that use one thing of this host; changed under a lock only.

    :param path: of the file
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def _load(self) -> list[dict[str, Any]]:
        try:
            with open(self._path, encoding="utf-8") as file:
                entries = json.load(file)["attachments"]
            return [entry for entry in entries if _is_alive(entry)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as exc:
            # Of another release, or cut off by a crash of the machine.
            LOG.warning("%s is not readable (%s), and is begun anew", self._path, exc)
            return []

    def _save(self, entries: list[dict[str, Any]]) -> None:
        if not entries:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            return
        new = f"{self._path}.new"
        with open(new, "w", encoding="utf-8") as file:
            json.dump({"attachments": entries}, file)
        os.replace(new, self._path)

    def add(self, attachment_id: str) -> None:
        """Note an attachment of this process.

        :param attachment_id: its id
        """
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        boot, namespace = _this_world()
        entry = {
            "id": attachment_id,
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "boot": boot,
            "namespace": namespace,
        }
        self._save([*self._load(), entry])

    def remove(self, attachment_id: str) -> int:
        """Forget an attachment.

        :param attachment_id: its id
        :returns: how many are left
        """
        entries = [entry for entry in self._load() if entry["id"] != attachment_id]
        self._save(entries)
        return len(entries)
