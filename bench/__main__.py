# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m bench file``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from pathlib import Path

from bench import environments, report
from bench.runner import MeasurementError, Runner
from bench.scenarios import DRIVERS


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
        help="measure this one only; may be given several times (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default: 5)")
    parser.add_argument("--tmpfs", default="/dev/shm", help="a folder in memory (%(default)s)")
    parser.add_argument(
        "--disk", default=str(environments.CACHE), help="a folder on a disk (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all measurements to this file")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument(
        "--null",
        action="store_true",
        help="put the reference in both places: shows how far the ratios are off by chance",
    )
    return parser.parse_args()


def main() -> int:
    wanted = arguments()
    scenarios = {scenario.name: scenario for scenario in DRIVERS[wanted.driver]}
    if wanted.list:
        print("\n".join(f"{name:<18} {each.title}" for name, each in scenarios.items()))
        return 0
    names = wanted.scenario or list(scenarios)
    unknown = sorted(set(names) - set(scenarios))
    if unknown or wanted.rounds < 1:
        print("unknown scenario, or less than one round: see --list, --help", file=sys.stderr)
        return 2

    # A terminated run, too, has to remove its scratch folders: they hold memory.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = []
    try:
        reference = environments.reference()
        current = reference if wanted.null else environments.current(like=reference)
        places = {"tmpfs": wanted.tmpfs, "disk": wanted.disk}
        runner = Runner(reference, current, places, wanted.rounds)
        print(json.dumps(report.machine(runner)), end="\n\n")
        for name in names:
            scenario = scenarios[name]
            if wanted.null:
                scenario = dataclasses.replace(scenario, goal=None)
            results.append(runner.run(scenario))
            print(report.table(results[-1]), flush=True)
            if wanted.json:
                written = json.dumps(report.record(runner, results), indent=1)
                Path(wanted.json).write_text(written + "\n")
    except (environments.EnvironmentUnusableError, MeasurementError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    missed = [each.scenario.name for each in results if (v := report.judge(each)) and not v.kept]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed and wanted.check else 0


if __name__ == "__main__":
    sys.exit(main())
