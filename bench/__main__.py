# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m bench file``, or another driver."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import beds, environments, report
from bench.contenders import MeasurementError
from bench.exchange import exchange
from bench.runner import Runner
from bench.scenarios import DRIVERS

if TYPE_CHECKING:
    from bench.beds.base import Bed
    from bench.model import Result, Scenario


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"Measure this repository against {environments.REFERENCE}, in turn.",
    )
    parser.add_argument("driver", choices=sorted(DRIVERS), help="the driver to measure")
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="NAME",
        help="measure this one only; may be given several times (default: all but the extra ones)",
    )
    parser.add_argument("--sweep", action="store_true", help="measure the extra ones as well")
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default: 5)")
    parser.add_argument("--tmpfs", default="/dev/shm", help="a folder in memory (%(default)s)")
    parser.add_argument(
        "--disk", default=str(environments.CACHE), help="a folder on a disk (%(default)s)"
    )
    parser.add_argument(
        "--servers", metavar="DIR", help="where servers keep their data (default: TMPDIR, or /tmp)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all measurements to this file")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument(
        "--null",
        action="store_true",
        help="put the reference in both places: shows how far the ratios are off by chance",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="try with smaller images, without goals: no record, FACTOR is above 0 and at most 1",
    )
    parser.add_argument(
        "--exchange",
        action="store_true",
        help="measure nothing: read and delete what the reference has stored, and the other way",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show all that a failing worker of ours wrote"
    )
    return parser.parse_args()


def chosen(wanted: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios to measure, as they are to be measured.

    Raises ValueError when the command line makes no sense.
    """
    scenarios = {scenario.name: scenario for scenario in DRIVERS[wanted.driver]}
    usual = [name for name, each in scenarios.items() if wanted.sweep or not each.extra]
    names = wanted.scenario or usual
    if set(names) - set(scenarios) or wanted.rounds < 1 or not 0 < wanted.scale <= 1:
        raise ValueError("unknown scenario, less than one round, or no such scale")
    found = [scenarios[name] for name in names]
    if wanted.scale != 1:
        found = [scenario.scaled(wanted.scale) for scenario in found]
    if wanted.null:
        found = [dataclasses.replace(scenario, goals=()) for scenario in found]
    return found


def both(wanted: argparse.Namespace, bed: Bed) -> tuple[environments.Environment, ...]:
    """Return the environments of the two sides."""
    reference = environments.reference(bed.driver, bed.clients)
    return reference, (
        reference if wanted.null else environments.current(bed.driver, like=reference)
    )


def measure(wanted: argparse.Namespace, scenarios: list[Scenario], bed: Bed) -> list[Result]:
    """Measure, and print as soon as there is something to print."""
    results = []
    reference, current = both(wanted, bed)
    places = {"tmpfs": wanted.tmpfs, "disk": wanted.disk}
    runner = Runner(reference, current, places, wanted.rounds, bed, wanted.scale, wanted.verbose)
    print(json.dumps(report.machine(runner)), end="\n\n", flush=True)
    for scenario in scenarios:
        results.append(runner.run(scenario))
        print(report.table(results[-1]), flush=True)
        if wanted.json:
            written = json.dumps(report.record(runner, results), indent=1)
            Path(wanted.json).write_text(written + "\n")
    if wanted.scale != 1:
        print(f"no record: sizes were multiplied by {wanted.scale}")
    return results


def main() -> int:
    wanted = arguments()
    if wanted.list:
        for each in DRIVERS[wanted.driver]:
            print(f"{each.name:<18} {each.title}{' (extra)' if each.extra else ''}")
        return 0
    # A terminated run, too, has to remove its scratch folders and servers: they hold memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if wanted.servers:
        tempfile.tempdir = wanted.servers
    try:
        scenarios = chosen(wanted)
        with beds.bed(wanted.driver) as bed:
            if wanted.exchange:
                return 0 if exchange(bed, *both(wanted, bed)) else 1
            results = measure(wanted, scenarios, bed)
    except (
        environments.EnvironmentUnusableError,
        beds.UnusableError,
        MeasurementError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        print(f"bench: {error}; see --list, --help, README.rst", file=sys.stderr)
        return 2
    missed = [
        each.scenario.name
        for each in results
        if not all(verdict.kept for verdict in report.judge(each))
    ]
    if missed:
        print(f"missed: {', '.join(missed)}")
    if any(each.failures for each in results):
        return 2
    return 1 if missed and wanted.check else 0


if __name__ == "__main__":
    sys.exit(main())
