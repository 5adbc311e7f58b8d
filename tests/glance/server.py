# SPDX-License-Identifier: Apache-2.0
"""A real Glance: its API served by uWSGI on loopback, its database, and its commands."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tests.services import reaper

from .configuration import glance_options, merged, write_configuration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from .environment import GlanceEnvironment

START_SECONDS = 60.0
STOP_SECONDS = 20.0
COMMAND_SECONDS = 120.0


class GlanceStartError(Exception):
    """Glance did not come up; the text ends with what it logged."""


@dataclass(frozen=True)
class Surroundings:
    """What the processes of a Glance find besides their configuration.

    :ivar modules: more folders of Python modules
    :ivar programs: folders of programs that come before those of the system
    :ivar site: Python code that runs before anything else
    """

    modules: tuple[Path, ...] = ()
    programs: tuple[Path, ...] = ()
    site: str = ""


class GlanceServer:
    """One Glance with a state folder of its own.

    :param environment: where Glance is installed
    :param state: an empty folder for configuration, database, stores and logs
    :param database: an empty database of Glance to start from; None: make one
    :param options: changes to the options of `configuration.glance_options`, by section and name
    :param processes: how many processes serve the API
    :param prefork: load Glance (and so configure the stores) in the parent of those processes
        instead of in each of them
    :param surroundings: what its processes find
    """

    def __init__(
        self,
        environment: GlanceEnvironment,
        state: Path,
        *,
        database: Path | None = None,
        options: Mapping[str, Mapping[str, str]] | None = None,
        processes: int = 1,
        prefork: bool = False,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.state = state
        self.staging = state / "staging"
        self.log = state / "glance-api.log"
        self.database = state / "glance.sqlite"
        self.url = ""
        self._environment = environment
        self._surroundings = surroundings or Surroundings()
        self._processes = processes
        self._prefork = prefork
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        defaults = glance_options(state, environment.command("python"))
        for folder in ("stores", "locks"):
            (state / folder).mkdir(parents=True)
        effective = merged(defaults, options or {})
        write_configuration(state / "etc", effective, self._surroundings.site)
        if database is None:
            self.run("glance-manage", "db_sync")
        else:
            shutil.copyfile(database, self.database)

    # -- the API server

    def start(self) -> None:
        """Start the API server and wait until it answers.

        :raises GlanceStartError: it ended, or was not ready in time
        """
        with open(self.log, "ab") as log:
            self._log_start = log.tell()
            # A session of its own: stop() then reaches the workers even if their master is gone.
            self._process = subprocess.Popen(
                self._uwsgi(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._variables(),
                cwd=self.state,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.stop()
                why = "was not ready in time" if code is None else f"ended with {code}"
                raise GlanceStartError(f"Glance {why}:\n{self.log_text(self._log_start)}")
            time.sleep(0.05)

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Stop the API server and every process it started.

        :param sign: SIGKILL lets it die on the spot, as in a crash
        """
        if self._process is None:
            return
        self._signal_group(sign)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
        # A worker outlives its master for a moment, or for good when the master was killed.
        deadline = time.monotonic() + STOP_SECONDS
        while self._signal_group(signal.SIGKILL) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._process = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _signal_group(self, sign: signal.Signals) -> bool:
        """Signal every process of the API server; return False when none is left."""
        if self._process is None:
            return False
        try:
            os.killpg(self._process.pid, sign)
        except ProcessLookupError:
            return False
        return True

    def _uwsgi(self) -> list[str]:
        """Return the command line, with the options of the sample in Glance's sources."""
        command = [self._environment.command("uwsgi"), "--http-socket", "127.0.0.1:0"]
        command += ["--module", "glance.wsgi.api:application", "--need-app", "--master"]
        command += ["--processes", str(self._processes), "--enable-threads", "--threads", "16"]
        command += ["--die-on-term", "--thunder-lock", "--buffer-size", "65535"]
        command += ["--add-header", "Connection: close", "--socket-timeout", "30"]
        command += ["--disable-logging", "--log-4xx", "--log-5xx"]  # of the requests
        return command if self._prefork else [*command, "--lazy-apps"]

    def _is_ready(self) -> bool:
        # uWSGI takes a free port by itself, and says which: nobody can snatch it in between.
        bound = re.search(
            r"bound to TCP address (127\.0\.0\.1:\d+)", self.log_text(self._log_start)
        )
        if bound is None:
            return False
        url = f"http://{bound.group(1)}"
        try:
            with requests.Session() as session:
                session.trust_env = False
                # The socket listens before Glance is loaded, the answer comes afterwards.
                ready = session.get(f"{url}/healthcheck", timeout=START_SECONDS).status_code == 200
        except requests.RequestException:
            return False
        if ready:
            self.url = url
        return ready

    # -- its commands, its files, its database

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of Glance's commands with this configuration and return its output.

        :param name: the command, such as `glance-scrubber`
        :raises AssertionError: it failed
        """
        config = str(self.state / "etc" / "glance-api.conf")
        command = [self._environment.command(name), "--config-file", config, *arguments]
        done = subprocess.run(
            command,
            env=self._variables(),
            cwd=self.state,
            timeout=COMMAND_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        (self.state / f"{name}.log").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, f"{name} exited with {done.returncode}:\n{done.stderr}"
        return done

    def _variables(self) -> dict[str, str]:
        # Nothing of the caller's environment: a proxy or a PYTHONPATH there would change the test.
        modules = (self.state / "etc", self._environment.site_packages)
        modules += self._surroundings.modules
        return {
            "PATH": os.pathsep.join([*map(str, self._surroundings.programs), os.defpath]),
            "HOME": str(self.state),
            "LANG": "C.UTF-8",
            "OS_GLANCE_CONFIG_DIR": str(self.state / "etc"),
            # uWSGI embeds Python and would not find the venv by itself.
            "PYTHONPATH": os.pathsep.join(map(str, modules)),
            # By this they are found should the run be killed.
            reaper.VARIABLE: os.environ[reaper.VARIABLE],
        }

    def datadir(self, store: str) -> Path:
        """Return the data directory of one of the file stores."""
        return self.state / "stores" / store

    def stored(self, store: str) -> list[str]:
        """Return the names of all files in the data directory of a file store."""
        return sorted(entry.name for entry in self.datadir(store).iterdir())

    def staged(self) -> list[str]:
        """Return the names of all files in the staging store."""
        return sorted(entry.name for entry in self.staging.iterdir())

    def open_files(self, store: str) -> list[str]:
        """Return the files of a file store that the API server has open, named or not."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            # Processes and descriptors come and go while they are looked at.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if self._process is None or os.getpgid(int(process.name)) != self._process.pid:
                    continue
                found += [os.readlink(entry) for entry in (process / "fd").iterdir()]
        return [name for name in found if name.startswith(f"{self.datadir(store)}/")]

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Run one SQL statement on Glance's database, past Glance, and return the rows."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            with connection:
                return connection.execute(statement, parameters).fetchall()

    def log_text(self, start: int = 0) -> str:
        """Return what the API server logged, from a position on."""
        if not self.log.exists():
            return ""
        with open(self.log, "rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")
