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

from bench.model import CURRENT, REFERENCE
from bench.worker import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.model import Goal, Result
    from bench.runner import Runner
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


def ratio(result: Result, label: str, against: str = REFERENCE) -> tuple[float, float, float]:
    """Return how many times as fast as ``against`` a contender is: median, least and greatest of
    the turns. What disturbs one turn disturbs both sides of it, so each is compared alone.
    """
    other, own = result.measurements[against], result.measurements[label]
    turns = [a.seconds / b.seconds for a, b in zip(other, own, strict=True)]
    return statistics.median(turns), min(turns), max(turns)


def judge(result: Result) -> list[Verdict]:
    """Hold the current library's measurements against the goals of the scenario."""
    return [_judge(goal, result) for goal in result.scenario.goals]


def _judge(goal: Goal, result: Result) -> Verdict:
    needed = {CURRENT, goal.against} if goal.kind == "speed" else {CURRENT}
    missing = sorted(needed - set(result.measurements))
    if missing:
        return Verdict(0.0, f"no measurement of {', '.join(missing)}", kept=False)
    current = result.measurements[CURRENT]
    if goal.kind == "speed":
        value = ratio(result, CURRENT, goal.against)[0]
        other = "" if goal.against == REFERENCE else f" of {goal.against}"
        return Verdict(
            value, f"{value:.2f}x{other}, goal at least {goal.limit}x", value >= goal.limit
        )
    if goal.kind == "peak":
        value = max(each.peak_rss for each in current)
        text = f"{value / MIB:.0f} MiB, goal under {goal.limit / MIB:.0f} MiB"
        return Verdict(value, text, value < goal.limit)
    if goal.kind == "figure":
        value = max(each.figures[goal.figure] for each in current)
        text = f"{goal.figure} {value:.0f}, goal at most {goal.limit:.0f}"
        return Verdict(value, text, value <= goal.limit)
    value = median(current) / median(result.measurements["dependencies"])
    text = f"{value:.2f}x dependencies, goal at most {goal.limit}x"
    return Verdict(value, text, value <= goal.limit)


def table(result: Result) -> str:
    """Return a table of one line for each contender, under a line for the scenario."""
    scenario = result.scenario
    turns = max(map(len, result.measurements.values()), default=0)
    where = f"{scenario.place}, {scenario.link}" if scenario.link else scenario.place
    lines = [
        f"{scenario.name}: {scenario.title}  ({where}, {turns} turns)",
        _ROW.format(
            "", "seconds", "MiB/s", "CPU s", "peak MiB", "others", "reference/this (least-most)"
        ),
    ]
    lines += [_row(result, label) for label in result.measurements]
    lines += [f"{label:<14} failed: {reason}" for label, reason in result.failures.items()]
    lines += [_stated(result, name) for name in scenario.stated if result.measurements]
    lines += [
        f"{'':<14} {'kept' if verdict.kept else 'MISSED'}: {verdict.text}"
        for verdict in judge(result)
    ]
    return "\n".join(lines) + "\n"


def _row(result: Result, label: str) -> str:
    series = result.measurements[label]
    seconds, moved = median(series), median(series, "bytes")
    peak = max(each.peak_rss for each in series)
    compared = ""
    if label != REFERENCE and REFERENCE in result.measurements:
        by_turns, least, most = ratio(result, label)
        compared = f"{by_turns:.2f}x ({least:.2f}-{most:.2f})"
    cells = (
        label,
        f"{seconds:.3f}",
        f"{moved / MIB / seconds:.0f}" if moved else "-",
        f"{median(series, 'cpu_seconds'):.3f}",
        f"{peak / MIB:.0f}" if peak else "-",
        f"{median(series, 'others'):.1f}" if peak else "-",
        compared,
    )
    return _ROW.format(*cells).rstrip()


def _stated(result: Result, name: str) -> str:
    """Return a line with a figure of all contenders that have it."""
    medians = {
        label: statistics.median(each.figures[name] for each in series)
        for label, series in result.measurements.items()
        if all(name in each.figures for each in series)
    }
    cells = ", ".join(f"{label} {value:.4g}" for label, value in medians.items())
    return f"{'':<14} {name}: {cells}"


def machine(runner: Runner) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "filesystems": {name: filesystem(folder) for name, folder in runner.places.items()},
        "reference": runner.reference.version,
        "current": runner.current.version,
        **({"clients": runner.current.clients} if runner.current.clients else {}),
        **({"scale, so no record": runner.scale} if runner.scale != 1 else {}),
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
                "failures": result.failures,
                "ratios": {
                    label: ratio(result, label)[0]
                    for label in result.measurements
                    if REFERENCE in result.measurements
                },
                "verdicts": [dataclasses.asdict(verdict) for verdict in judge(result)],
            }
            for result in results
        },
    }
