"""Figures with their baselines and targets, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

HEAD = ("figure", "dingbridge", "range", "baseline", "", "ratio", "target", "")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure is held to: itself, or with `of_baseline` its ratio to the baseline."""

    limit: float
    least: bool = False
    of_baseline: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: a median of several runs, beside the median of the same from a baseline of the same run."""

    name: str
    unit: str
    runs: Sequence[float]
    baseline_name: str = ""
    baseline_runs: Sequence[float] = ()
    bound: Bound | None = None

    @property
    def value(self) -> float:
        return median(self.runs)

    @property
    def ratio(self) -> float | None:
        return self.value / median(self.baseline_runs) if self.baseline_runs else None

    @property
    def ok(self) -> bool | None:
        """None where nothing is promised."""
        if self.bound is None:
            return None
        judged = self.ratio if self.bound.of_baseline else self.value
        return judged is not None and self.bound.holds(judged)

    def row(self) -> tuple[str, ...]:
        spread = f"{_short(min(self.runs))}-{_short(max(self.runs))}" if len(self.runs) > 1 else ""
        return (
            self.name,
            f"{_short(self.value)} {self.unit}",
            spread,
            f"{_short(median(self.baseline_runs))} {self.unit}" if self.baseline_runs else "",
            self.baseline_name,
            f"{self.ratio:.2f}" if self.ratio is not None else "",
            self._target(),
            {None: "", True: "ok", False: "OVER"}[self.ok],
        )

    def _target(self) -> str:
        if self.bound is None:
            return ""
        unit = "x" if self.bound.of_baseline else self.unit
        return f"{'>=' if self.bound.least else '<='} {self.bound.limit:g} {unit}"

    def as_json(self) -> dict[str, Any]:
        derived = {"value": self.value, "ratio": self.ratio, "ok": self.ok}
        return {**asdict(self), "runs": list(self.runs), "baseline_runs": list(self.baseline_runs), **derived}


def render(figures: Iterable[Figure]) -> str:
    rows = [HEAD, *(figure.row() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
