"""The highest Poisson rate that keeps an objective: the Server scenario of MLPerf Inference (Reddi et al., 2020).

Rates are doubled or halved until one holds and one does not, then bisected. What probes a rate is the caller's: the
fleet of `python -m load_tests capacity`, or a queue that is computed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

CONFIDENCE: Final = 0.95  # one-sided
PERCENTILE: Final = 99.0
PRECISION: Final = 0.05  # of the rate
GAP: Final = 10  # arrivals; violations that are no further apart are of one clump
MARGIN: Final = 1.2  # of the least rate: 299 Poisson arrivals vary by 17


class Decision(StrEnum):
    """What a trial says of its rate."""

    HOLDS = "holds"
    BREAKS = "breaks"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a probe.

    Attributes:
        violating: of each arrival, in order: whether it was not answered well within the objective.
        seconds: of the schedule, those of the warm-up left out.
        reasons: of the violations.
        warnings: why the measurement is not to be trusted.
    """

    violating: Sequence[bool]
    seconds: float
    reasons: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


# Yields slice after slice at a rate, arrivals a second, for as long as it is asked; then it is closed.
Probe = Callable[[float], Generator[Slice, None, None]]


@dataclass(frozen=True, slots=True)
class Trial:
    """All slices at one rate.

    Attributes:
        rate: arrivals a second.
        arrivals, violations: how many.
        clump: how many violations come together (`clump_size`).
        seconds, reasons, warnings: as those of `Slice`, over all of them.
        lower, upper: confidence bounds of the share of violations.
        decision: what they say.
    """

    rate: float
    arrivals: int
    violations: int
    clump: float
    seconds: float
    reasons: Mapping[str, int]
    warnings: tuple[str, ...]
    lower: float
    upper: float
    decision: Decision

    @property
    def share(self) -> float:
        """Of violations."""
        return self.violations / self.arrivals if self.arrivals else math.nan


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds, and how long is sought.

    Attributes:
        percentile: of the arrivals that are to keep the objective.
        confidence: of each one-sided bound.
        precision: width of the last bracket, as a share of its lower end.
        min_seconds: of a trial that holds, as MLPerf's min_duration: many arrivals of one moment are one observation.
        max_seconds: of a trial; one that is undecided by then counts as not holding.
        max_rate: none above it is tried.

    Raises:
        ValueError: one is out of its range, or not even the highest rate brings arrivals enough in the time.
    """

    percentile: float = PERCENTILE
    confidence: float = CONFIDENCE
    precision: float = PRECISION
    min_seconds: float = 60.0
    max_seconds: float = 600.0
    max_rate: float = 1000.0

    def __post_init__(self) -> None:
        for name, value, below in (
            ("percentile", self.percentile, 100),
            ("confidence", self.confidence, 1),
            ("precision", self.precision, math.inf),
            ("min_seconds", self.min_seconds, math.inf),
            ("max_seconds", self.max_seconds, math.inf),
            ("max_rate", self.max_rate, math.inf),
        ):
            if not 0 < value < below:
                raise ValueError(f"{name} is {value:g}; it must be above 0 and below {below:g}")
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds is {self.min_seconds:g}; it must not be above max_seconds")
        if self.least_rate > self.max_rate:
            raise ValueError(
                f"{self.least_arrivals} arrivals, the least that show anything, take more than {self.max_seconds:g} s "
                f"at {self.max_rate:g} a second: allow a trial {MARGIN * self.least_arrivals / self.max_rate:.0f} s"
            )

    @property
    def allowed(self) -> float:
        """Share of violations."""
        return 1 - self.percentile / 100

    @property
    def least_arrivals(self) -> int:
        """Fewer show nothing, even without a violation: 299 for 99 % at a confidence of 95 %."""
        return math.ceil(math.log1p(-self.confidence) / math.log1p(-self.allowed))

    @property
    def least_rate(self) -> float:
        """Below it, `least_arrivals` are not sure to come within `max_seconds`."""
        return MARGIN * self.least_arrivals / self.max_seconds


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the search found.

    Attributes:
        rate: highest that held; 0 where none did.
        above: lowest that did not; None where all held up to the highest rate that may be tried.
        trials: in the order of the search.
        terms: of the search.
    """

    rate: float
    above: float | None
    trials: tuple[Trial, ...]
    terms: Terms

    @property
    def undecided(self) -> bool:
        """Whether the upper end was not shown to break, only not to hold in time: the capacity may be above it."""
        return any(each.rate == self.above and each.decision is Decision.UNDECIDED for each in self.trials)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the trials that the result rests on."""
        ends = (each for each in self.trials if each.rate in (self.rate, self.above))
        return tuple(dict.fromkeys(f"{each.rate:.4g}/s: {warning}" for each in ends for warning in each.warnings))


def clump_size(violating: ArrayLike) -> float:
    """Mean size of the clump that a violation is in; 1 where each stands alone, or there is none.

    In a queue those that violate come together. A clump of c is one observation and not c: by as much the variance of
    their number is above that of independent ones (Aldous, 1989). Clumps are told apart by runs (Smith, Weissman 1994).

    Args:
        violating: bool, shape (arrivals,), in order.
    """
    at = np.flatnonzero(violating)
    ends = np.flatnonzero(np.diff(at) > GAP)
    sizes = np.diff(ends, prepend=-1, append=at.size - 1)
    return float(np.sum(sizes**2) / at.size) if at.size else 1.0


def bounds(violations: int, arrivals: int, confidence: float, clump: float = 1.0) -> tuple[float, float]:
    """Bounds of a share, one-sided each (Clopper and Pearson, 1934), as if of so many fewer as come in a clump."""
    hits, others = violations / clump, (arrivals - violations) / clump
    lower = float(beta.ppf(1 - confidence, hits, others + 1)) if violations else 0.0
    upper = float(beta.ppf(confidence, hits + 1, others)) if violations < arrivals else 1.0
    return lower, upper


def find_capacity(
    probe: Probe, terms: Terms, start: float = 1.0, report: Callable[[Trial], None] = lambda _: None
) -> Capacity:
    """The highest rate that holds.

    Args:
        probe: measures a rate.
        terms: what holds.
        start: first rate, arrivals a second; raised to the least and lowered to the highest that may be tried.
        report: is told of every trial once it is over.
    """
    holding, breaking, trials = 0.0, math.inf, list[Trial]()
    rate = min(max(start, terms.least_rate), terms.max_rate)
    while True:
        trials.append(_try(probe, rate, terms))
        report(trials[-1])
        if trials[-1].decision is Decision.HOLDS:
            holding = rate
        else:
            breaking = rate
        at_an_end = holding >= terms.max_rate or breaking <= terms.least_rate
        if at_an_end or breaking <= holding * (1 + terms.precision):
            return Capacity(holding, None if math.isinf(breaking) else breaking, tuple(trials), terms)
        rate = _between(holding, breaking, terms)


def _between(holding: float, breaking: float, terms: Terms) -> float:
    """The next rate: double, half, or the middle by ratio."""
    if math.isinf(breaking):
        return min(2 * holding, terms.max_rate)
    return math.sqrt(holding * breaking) if holding else max(breaking / 2, terms.least_rate)


def _try(probe: Probe, rate: float, terms: Terms) -> Trial:
    """Probes until the bounds decide, or the time is over.

    It may break after any slice, which errs on the side of caution. It may hold only at the least number of arrivals
    and seconds, and when the arrivals have doubled since the decision before: deciding again and again until the
    answer pleases would please too often.
    """
    violating, seconds, next_decision_at = np.zeros(0, bool), 0.0, terms.least_arrivals
    reasons, warnings, decision = Counter[str](), dict[str, None](), Decision.UNDECIDED
    arrivals, violations, clump, lower, upper = 0, 0, 1.0, 0.0, 1.0
    with closing(probe(rate)) as slices:
        for part in slices:
            seconds += part.seconds
            reasons.update(part.reasons)
            warnings |= dict.fromkeys(part.warnings)
            violating = np.append(violating, np.asarray(part.violating, bool))
            arrivals, violations, clump = violating.size, int(violating.sum()), clump_size(violating)
            lower, upper = bounds(violations, arrivals, terms.confidence, clump)
            over = seconds >= terms.max_seconds
            if lower > terms.allowed:
                decision = Decision.BREAKS
            elif (arrivals >= next_decision_at and seconds >= terms.min_seconds) or over:
                next_decision_at = 2 * arrivals
                decision = Decision.HOLDS if upper <= terms.allowed else Decision.UNDECIDED
            if over or decision is not Decision.UNDECIDED:
                break
    why = dict(reasons.most_common())
    return Trial(rate, arrivals, violations, clump, seconds, why, tuple(warnings), lower, upper, decision)
