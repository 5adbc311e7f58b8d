# SPDX-License-Identifier: Apache-2.0
"""Medians and ratios: as a table, as JSON, and against the goals."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.worker import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runner import Runner
    from bench.scenarios import Goal, Result
    from bench.worker import Measurement

_ROW = "{:<14} {:>9} {:>9} {:>8} {:>9} {:>7}   {:<24}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A goal, the value measured for it, and whether that keeps it."""

    value: float
    text: str
    kept: bool


def median(series: Sequence[Measurement], attribute: str = "seconds") -> float:
    """Return the median of an attribute of the measurements."""
    return float(statistics.median(getattr(each, attribute) for each in series))


def ratio(result: Result, label: str) -> tuple[float, float, float]:
    """Return how many times as fast as the reference ``label`` is: median, least and greatest
    of the turns. What disturbs one turn disturbs both sides of it, so each is compared alone.
    """
    reference, other = result.measurements["reference"], result.measurements[label]
    turns = [a.seconds / b.seconds for a, b in zip(reference, other, strict=True)]
    return statistics.median(turns), min(turns), max(turns)


def judge(result: Result) -> Verdict | None:
    """Hold the current library's measurements against the goal of the scenario, if it has one."""
    goal = result.scenario.goal
    return None if goal is None else _judge(goal, result)


def _judge(goal: Goal, result: Result) -> Verdict:
    current = result.measurements["current"]
    if goal.kind == "speed":
        value = ratio(result, "current")[0]
        return Verdict(value, f"{value:.2f}x, goal at least {goal.limit}x", value >= goal.limit)
    if goal.kind == "peak":
        value = max(each.peak_rss for each in current)
        text = f"{value / MIB:.0f} MiB, goal under {goal.limit / MIB:.0f} MiB"
        return Verdict(value, text, value < goal.limit)
    value = median(current) / median(result.measurements["dependencies"])
    text = f"{value:.2f}x dependencies, goal at most {goal.limit}x"
    return Verdict(value, text, value <= goal.limit)


def table(result: Result) -> str:
    """Return a table of one line for each contender, under a line for the scenario."""
    scenario = result.scenario
    turns = len(result.measurements["reference"])
    lines = [
        f"{scenario.name}: {scenario.title}  ({scenario.place}, {turns} turns)",
        _ROW.format(
            "", "seconds", "MiB/s", "CPU s", "peak MiB", "others", "reference/this (least-most)"
        ),
    ]
    for label, series in result.measurements.items():
        seconds, moved = median(series), median(series, "bytes")
        peak = max(each.peak_rss for each in series)
        by_turns, least, most = ratio(result, label)
        cells = (
            label,
            f"{seconds:.3f}",
            f"{moved / MIB / seconds:.0f}" if moved else "-",
            f"{median(series, 'cpu_seconds'):.3f}",
            f"{peak / MIB:.0f}" if peak else "-",
            f"{median(series, 'others'):.1f}" if peak else "-",
            f"{by_turns:.2f}x ({least:.2f}-{most:.2f})" if label != "reference" else "",
        )
        lines.append(_ROW.format(*cells).rstrip())
    verdict = judge(result)
    if verdict:
        lines.append(f"{'':<14} {'kept' if verdict.kept else 'MISSED'}: {verdict.text}")
    return "\n".join(lines) + "\n"


def machine(runner: Runner) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "filesystems": {name: filesystem(folder) for name, folder in runner.places.items()},
        "reference": runner.reference.version,
        "current": runner.current.version,
    }


def filesystem(folder: str) -> str:
    """Return the type of the file system that ``folder`` is on, or "unknown"."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    real = Path(folder).resolve()
    above = [(len(point), kind) for point, kind in mounts if real.is_relative_to(point)]
    return max(above, default=(0, "unknown"))[1]


def record(runner: Runner, results: Sequence[Result]) -> dict[str, Any]:
    """Return everything measured, ready for JSON."""
    return {
        "command": sys.argv,
        "machine": machine(runner),
        "scenarios": {
            result.scenario.name: {
                "title": result.scenario.title,
                "measurements": {
                    label: [dataclasses.asdict(each) for each in series]
                    for label, series in result.measurements.items()
                },
                "ratios": {label: ratio(result, label)[0] for label in result.measurements},
                "verdict": dataclasses.asdict(verdict) if (verdict := judge(result)) else None,
            }
            for result in results
        },
    }
