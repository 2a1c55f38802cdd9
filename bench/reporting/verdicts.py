"""A verdict: what the records say about one claim, in words that claim no more than was measured.

    verdict = verdict_of(claim, group, finding)
    verdict.words       # "not at 6 passes over the data, one training"

A claim is replicated if its whole 95% interval lies on the claimed side, not replicated if it lies on the other, and
inconclusive if it spans the border or no sound interval is at hand. An upper bound above an exact value refutes
nothing; what another number of passes or images than the paper's did not show may yet show there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.reporting.catalogue import metric_of
from bench.reporting.estimates import Estimate, average_by_training
from bench.reporting.identity import identity
from bench.reporting.numbers import decimals_for, number
from bench.reporting.regimes import PAPER, Regime, Stage, regime_of
from bench.reporting.rows import Group, Row

Outcome = Literal["replicated", "not replicated", "inconclusive", "not run"]
LEAST_TRAININGS = 3
"""How many trainings of one configuration tell how far two of them differ by luck."""


@dataclass(frozen=True)
class Claim:
    """text: in one sentence.  where: in the paper.  needs: the command that measures it.

    trained: whose training it depends on, "" if nobody's (a speed).  of_convergence: it is about models trained to the
    end, so that a short training cannot refute it.
    """

    key: str
    text: str
    where: str
    needs: str
    judge: Callable[[Group, Path], Finding | str]
    trained: Stage | Literal[""] = ""
    of_convergence: bool = False


@dataclass(frozen=True)
class Finding:
    """What the records say. effect < border is what the claim asserts.

    metric: of the effect.  says: the two sides in words, such as "absorbing, 64 steps - autoregressive".
    rows: the two compared first.  trainings: a side.  bounds: "upper" where the first side is an upper bound and the
    second exact, so that the effect is one too.  shown: a remark that stands in the line of the verdict itself.
    ratio: what the effect is a ratio of, "" for a difference.  measured_by: ids of records that are of no row.
    """

    metric: str
    says: str
    estimate: Estimate
    rows: tuple[Row, ...]
    seeds: str
    border: float = 0.0
    remark: str = ""
    trainings: int = 1
    bounds: Literal["", "upper"] = ""
    shown: str = ""
    ratio: str = ""
    measured_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One claim on one data set under one protocol. records: ids of the runs behind it.

    words: the verdict with what limits it.  caveats: the limits in full.
    """

    claim: Claim
    group: Group
    verdict: Outcome
    effect: str
    interval: str
    says: str
    seeds: str
    reason: str
    records: tuple[str, ...]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    border: float = 0.0
    words: str = ""
    caveats: tuple[str, ...] = ()


def verdict_of(claim: Claim, group: Group, finding: Finding | str, others: Sequence[Group] = ()) -> Verdict:
    """A string is the reason why a claim could not be judged. others: where more trainings may tell their spread."""
    if isinstance(finding, str):
        return Verdict(claim, group, "not run", "", "", "", "", f"{finding} Run: {claim.needs}", (), words="not run")
    estimate = finding.estimate
    half = (estimate.high - estimate.low) / 2 if estimate.low is not None and estimate.high is not None else None
    decimals = decimals_for(estimate.value, half, metric_of(finding.metric).decimals)
    interval = f"[{number(estimate.low, decimals)}, {number(estimate.high, decimals)}]" if half is not None else ""
    at_most = "at most " if finding.bounds else ""
    effect = f"{finding.ratio} {number(estimate.value, decimals)}" if finding.ratio else \
        f"{metric_of(finding.metric).title} {at_most}{signed(estimate.value, decimals)}"
    found = outcome(estimate, finding.border)
    refutes_nothing = bool(finding.bounds) and found == "not replicated"
    regime = regime_of(finding.rows[0], claim.trained) if claim.trained else None
    caveats = tuple(filter(None, [
        finding.shown, REFUTES_NOTHING if refutes_nothing else "",
        f"outside the paper's regime: {regime.text}" if regime and not regime.is_papers else "",
        luck_of_training(finding, group, others) if claim.trained and finding.trainings == 1 else ""]))
    said: Outcome = "inconclusive" if refutes_nothing else found
    return Verdict(claim, group, said, effect, interval, finding.says, finding.seeds,
                   "; ".join(filter(None, [finding.remark, *caveats, estimate.basis])),
                   finding.measured_by or tuple(dict.fromkeys(r.id for row in finding.rows for r in row.records)),
                   estimate.value, estimate.low, estimate.high, finding.border,
                   words_of(claim, said, regime, finding.trainings), caveats)


def words_of(claim: Claim, found: Outcome, regime: Regime | None, trainings: int) -> str:
    """The outcome, no stronger than the training behind it."""
    words: str = found
    if found == "not replicated" and claim.of_convergence and regime and not regime.is_papers:
        words = f"not {regime.budget}"
    return f"{words}, one training" if claim.trained and trainings == 1 else words


def outcome(estimate: Estimate, border: float = 0.0) -> Outcome:
    """Claimed: the effect lies below the border."""
    if estimate.low is None or estimate.high is None:
        return "inconclusive"
    if estimate.high < border:
        return "replicated"
    return "not replicated" if estimate.low > border else "inconclusive"


def luck_of_training(finding: Finding, group: Group, others: Sequence[Group]) -> str:
    """How far two single trainings differ by luck, where some row of the data set was trained several times."""
    ours, theirs = finding.rows[0], finding.rows[-1]
    if _training(ours) == _training(theirs):
        return ""
    for place in (group, *(other for other in others if other.dataset == group.dataset and other != group)):
        for row in place.rows:
            cell = row.cells.get(finding.metric)
            if cell and (row.role, row.name) in ((ours.role, ours.name), (theirs.role, theirs.name)):
                means = average_by_training(dict(zip(cell.seeds(), cell.points(), strict=True)))
                if len(means) >= LEAST_TRAININGS:
                    spread = statistics.stdev(point.value for point in means.values()) * 2 ** 0.5
                    return (f"two single trainings differ by {number(spread, decimals_for(spread, spread / 10, 2))} in "
                            f"{metric_of(finding.metric).title} (standard deviation, from {len(means)} trainings of "
                            f"{row.label} under {place.heading})")
    return ""


def multiplicity(verdicts: Sequence[Verdict]) -> str:
    """A note on how many verdicts are read at once; "" for fewer than two."""
    judged = [verdict for verdict in verdicts if verdict.verdict != "not run"]
    if len(judged) < 2:
        return ""
    claims = len({verdict.claim.key for verdict in judged})
    protocols = len({verdict.group.protocol for verdict in judged})
    return (f"Multiplicity: {len(judged)} verdicts ({claims} claims, protocols: {protocols}), each from a 95% interval "
            f"of its own without correction, so {0.05 * len(judged):.1g} of the intervals may miss the truth by chance "
            "alone. Those of one protocol share models and images: they do not err independently.")


def limits(verdicts: Sequence[Verdict]) -> list[str]:
    """Caveats that hold for all verdicts: how many there are, and the paper's regime."""
    return [note for note in (multiplicity(verdicts), PAPER if verdicts else "") if note]


def signed(value: float, decimals: int) -> str:
    text = number(abs(value), decimals)
    return f"{'-' if value < 0 else '+'}{text}"


def _training(row: Row) -> dict[str, object]:
    return {key: value for key, value in identity(row.role, row.spec).items()
            if key.startswith(("vq.", "prior.", "dataset."))}


REFUTES_NOTHING = "an upper bound above an exact value refutes nothing"
