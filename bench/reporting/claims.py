"""The paper's claims as predicates over records: effect, interval, seeds, verdict, and the records behind it.

    for verdict in ledger(group, results_dir): print(verdict.claim.text, verdict.words, verdict.effect)

What a verdict may say is in `bench.reporting.verdicts`. Where FID has no interval, KID decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.reporting.by_unknown import underfitting
from bench.reporting.choice import (
    AUTOREGRESSIVE,
    DIFFUSION,
    but,
    fair_pair,
    full_steps,
    half_rows,
    order_of_preference,
    plain_rows,
    same_backbone,
    step_rows,
    training_of,
    training_steps,
)
from bench.reporting.curves import read_curve
from bench.reporting.differences import common_trainings, compare_cells
from bench.reporting.estimates import Estimate, t_interval
from bench.reporting.identity import seeds_of, tokenizer_of
from bench.reporting.numbers import number
from bench.reporting.paper import is_adversarial, matches
from bench.reporting.published import published
from bench.reporting.rows import Cell, Group, Row
from bench.reporting.speeds import CONTESTS, MEASURED_BY, is_faster
from bench.reporting.verdicts import Claim, Finding, Verdict, signed, verdict_of

TOLERANCE = 0.05
"""How much worse is still "similar", as a share of what a prior adds to its tokenizer's FID. On Churches the paper's
reconstructions have 2.70 (Table 5), the autoregressive prior 5.93 (Table 4) and absorbing diffusion at 100 steps 6.09
(Table 3): an excess of 3.23 and one of 3.39, 5% more. Most of a raw FID may be the tokenizer's.
"""
SHOWN_STEPS = 4


def ledger(group: Group, results_dir: Path, others: Sequence[Group] = ()) -> list[Verdict]:
    """Every claim judged on one group; none on edits, or where there are neither priors nor tokenizers to judge.

    others: groups that may tell how far trainings differ by luck.
    """
    if group.of_edits or not any(row.role in ("prior", "reconstruction") for row in group.rows):
        return []
    return [verdict_of(claim, group, claim.judge(group, results_dir), others) for claim in CLAIMS]


def compare_fidelity(ours: Row, theirs: Row) -> tuple[str, Estimate, str, str] | None:
    """(metric that decides, effect, seeds, remark): FID, or KID where FID has no interval and KID has one."""
    found = {}
    for metric in ("fid", "kid"):
        a, b = ours.cells.get(metric), theirs.cells.get(metric)
        if a and b and a.value is not None and b.value is not None:
            found[metric] = compare_cells(a, b)
    if not found:
        return None
    fid = found.get("fid")
    if fid and (fid[0].has_interval or "kid" not in found or not found["kid"][0].has_interval):
        return "fid", *fid, ""
    remark = f"FID {signed(fid[0].value, 1)} has no interval here, so KID decides" if fid else "KID decides"
    return "kid", *found["kid"], remark


def fidelity_finding(ours: Row, theirs: Row) -> Finding | str:
    compared = compare_fidelity(ours, theirs)
    if compared is None:
        return f"{ours.label} and {theirs.label} share neither FID nor KID."
    metric, estimate, seeds, remark = compared
    return Finding(metric, f"{ours.label} minus {theirs.label}", estimate, (ours, theirs), seeds,
                   remark="; ".join(filter(None, [budgets(ours, theirs), remark])),
                   trainings=common_trainings(ours.cells[metric], theirs.cells[metric]))


def budgets(ours: Row, theirs: Row) -> str:
    """How the two trainings differ, apart from the prior."""
    a, b = training_of(ours), training_of(theirs)
    steps = [f"{a['steps']:,} and {b['steps']:,} steps"] if a["steps"] != b["steps"] else []
    unequal = steps + [f"{name} {a[name]} and {b[name]}" for name in a if name != "steps" and a[name] != b[name]]
    return f"unequal training: {', '.join(unequal)}" if unequal else ""


# -- the claims -------------------------------------------------------------------------------------------------------


def beats_on_fid(group: Group, results_dir: Path) -> Finding | str:
    pair = fair_pair(plain_rows(group, DIFFUSION), plain_rows(group, AUTOREGRESSIVE))
    if pair is None:
        return NO_PAIR
    finding = fidelity_finding(*pair)
    steps, full = pair[0].steps or 0, full_steps(pair[0])
    if isinstance(finding, str) or steps >= full:
        return finding
    return replace(finding, remark="; ".join(filter(None, [f"at {steps} of {full} steps", finding.remark])))


def beats_on_likelihood(group: Group, results_dir: Path) -> Finding | str:
    pair = fair_pair(_with(plain_rows(group, DIFFUSION), "bits_per_token"),
                     _with(plain_rows(group, AUTOREGRESSIVE), "bits_per_token"))
    if pair is None:
        return NO_PAIR
    ours, theirs = pair
    left, right = ours.cells["bits_per_token"], theirs.cells["bits_per_token"]
    if left.scored != right.scored:
        return OTHER_IMAGES
    estimate, seeds = compare_cells(left, right)
    is_bound = bool(left.bound) and not right.bound
    shown = "; ".join(filter(None, [gap_by_step(_curves(ours, results_dir), _curves(theirs, results_dir)),
                                    underfitting(ours.name, left, theirs.name, right)]))
    return Finding("bits_per_token", f"{ours.name} minus {theirs.name}", estimate, pair, seeds,
                   remark="; ".join(filter(None, [budgets(*pair), kinds_compared(left, right)])),
                   trainings=common_trainings(left, right), bounds="upper" if is_bound else "", shown=shown)


def kinds_compared(ours: Cell, theirs: Cell) -> str:
    """What two likelihoods are, where they are not of one kind."""
    return "" if ours.remark == theirs.remark else \
        f"{ours.remark or 'of an untold kind'} against {theirs.remark or 'of an untold kind'}"


def gap_by_step(ours: dict[int, list[tuple[float, float]]], theirs: dict[int, list[tuple[float, float]]]) -> str:
    """How the difference of validation curves went: at most four steps, mean over common seeds; "" without curves."""
    pairs = [(dict(ours[seed]), dict(theirs[seed])) for seed in sorted(ours.keys() & theirs.keys())]
    steps = sorted(set.intersection(*(a.keys() & b.keys() for a, b in pairs))) if pairs else []
    if len(steps) < 2:
        return ""
    count = min(SHOWN_STEPS, len(steps))
    chosen = [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]
    gaps = [math.fsum(a[step] - b[step] for a, b in pairs) / len(pairs) for step in chosen]
    return "gap while training: " + ", ".join(f"{signed(gap, 2)} at {step:,.0f} steps"
                                              for gap, step in zip(gaps, chosen, strict=True))


def falls_with_steps(group: Group, results_dir: Path) -> Finding | str:
    rows = step_rows(group)
    if len(rows) < 2:
        return f"Fewer than two step counts of {DIFFUSION}."
    finding = fidelity_finding(rows[-1], rows[0])
    if isinstance(finding, str):
        return finding
    values = [row.cells[finding.metric].value for row in rows if row.cells.get(finding.metric)]
    falls = sum(b < a for a, b in zip(values, values[1:], strict=False) if a is not None and b is not None)
    remark = f"falls at {falls} of {len(values) - 1} increases of the number of steps"
    return replace(finding, rows=(rows[-1], *rows[:-1]), remark="; ".join(filter(None, [remark, finding.remark])))


def half_the_steps_match(group: Group, results_dir: Path) -> Finding | str:
    pair = fair_pair(half_rows(group), plain_rows(group, AUTOREGRESSIVE))
    if pair is None:
        return f"No {DIFFUSION} row with at most half of the full number of steps beside {AUTOREGRESSIVE}."
    finding = fidelity_finding(*pair)
    if isinstance(finding, str):
        return finding
    reconstructed = of_reconstructions(group, pair[1], finding.metric)
    if reconstructed is None:
        return f"No {finding.metric.upper()} of reconstructions by the same tokenizer, to measure both priors from."
    excess = (pair[1].cells[finding.metric].value or 0.0) - reconstructed
    says = f"similar means an excess over the reconstructions ({number(reconstructed, 3)}) at most {TOLERANCE:.0%} " \
           "greater"
    return replace(finding, border=TOLERANCE * max(0.0, excess),
                   remark="; ".join(filter(None, [says, finding.remark])))


def of_reconstructions(group: Group, row: Row, metric: str) -> float | None:
    """The same metric of reconstructions by the row's tokenizer: of a prior on it that models its tokens exactly."""
    tokenizer = tokenizer_of(row.spec)
    return next((found.cells[metric].value for found in group.measured("reconstruction")
                 if tokenizer_of(found.spec) == tokenizer and metric in found.cells
                 and found.cells[metric].n == row.cells[metric].n), None)


def temperature_lowers_fid(group: Group, results_dir: Path) -> Finding | str:
    for cold in plain_rows(group, DIFFUSION, temperature=0.9):
        for warm in plain_rows(group, DIFFUSION):
            if but(cold, "sampler.temperature") == but(warm, "sampler.temperature"):
                return fidelity_finding(cold, warm)
    return "No two rows differ in temperature 0.9 against 1.0 alone."


def reweighting_is_sooner(group: Group, results_dir: Path) -> Finding | str:
    rows = sorted((r for r in group.measured(name=DIFFUSION) if r.temperature == 1.0), key=order_of_preference)
    for ours in (r for r in rows if r.option("prior", "objective") == "reweighted_elbo"):
        for theirs in (r for r in rows if r.option("prior", "objective") == "elbo"):
            if same_backbone(ours, theirs) and training_steps(ours) == training_steps(theirs):
                return _reweighting(ours, theirs, results_dir)
    return "No two equally long trainings differ in the objective elbo against reweighted_elbo."


def _reweighting(ours: Row, theirs: Row, results_dir: Path) -> Finding | str:
    left, right = (_curves(row, results_dir) for row in (ours, theirs))
    common = sorted(left.keys() & right.keys())
    remark = arrival(left, right)
    a, b = ours.cells.get("bits_per_token"), theirs.cells.get("bits_per_token")
    if a and b and a.scored != b.scored:
        return OTHER_IMAGES
    if a and b and a.value is not None and b.value is not None:
        estimate, seeds = compare_cells(a, b)
        trainings, remark = common_trainings(a, b), "; ".join(filter(None, [remark, kinds_compared(a, b)]))
    elif common:
        gaps = [left[s][-1][1] - right[s][-1][1] for s in common]
        low, high = t_interval(gaps) if len(gaps) >= 3 else (None, None)
        estimate = Estimate(math.fsum(gaps) / len(gaps), low, high, "where the validation curves end")
        seeds, trainings = f"{len(gaps)} training", len(gaps)
    else:
        return "Neither likelihoods nor curves of the two objectives."
    return Finding("bits_per_token", "reweighted_elbo minus elbo", estimate, (ours, theirs), seeds, remark=remark,
                   trainings=trainings)


def both_reconstruct_best(group: Group, results_dir: Path) -> Finding | str:
    variants = {}
    for cell in published(5):
        rows = [r for r in group.measured("reconstruction") if matches(r, cell.selects) and is_adversarial(r)]
        if rows:
            variants[cell.row] = min(rows, key=order_of_preference)
    if len(variants) < 4:
        return f"{len(variants)} of the four tokenizers of Table 5, trained with a discriminator."
    both = variants.pop("Both")
    rival = min(variants.values(), key=lambda r: (r.cells["fid"].value if "fid" in r.cells else None) or math.inf)
    return fidelity_finding(both, rival)


def _with(rows: list[Row], metric: str) -> list[Row]:
    return [row for row in rows if metric in row.cells and row.cells[metric].value is not None]


def _curves(row: Row, results_dir: Path) -> dict[int, list[tuple[float, float]]]:
    """Training seed -> validation curve in bits per token."""
    found = {}
    for record in row.records:
        path = record.curves.get("prior")
        points = read_curve(results_dir / path, "validation_bits_per_token") if path else []
        if points:
            found[seeds_of(record.spec)[0]] = points
    return found


def arrival(ours: dict[int, list[tuple[float, float]]], theirs: dict[int, list[tuple[float, float]]]) -> str:
    """Where the mean of our validation curves passes the lowest point of the mean of theirs, in words.

    Both means are over the same seeds, so that no seed's best stands beside a mean. "" without common seeds or steps.
    """
    left, right = (mean_curve(curves, ours.keys() & theirs.keys()) for curves in (ours, theirs))
    if not left or not right:
        return ""
    level = min(value for _, value in right)
    step = next((step for step, value in left if value <= level), None)
    count = len(ours.keys() & theirs.keys())
    whose = "the curve" if count == 1 else f"the mean curve of {count} trainings"
    when = "never reaches" if step is None else f"after {step:,.0f} of {right[-1][0]:,.0f} steps reaches"
    return f"{whose} {when} the lowest point of the other's"


def mean_curve(curves: dict[int, list[tuple[float, float]]], seeds: Iterable[int]) -> list[tuple[float, float]]:
    """The mean over seeds at the steps that all of them have."""
    chosen = [dict(curves[seed]) for seed in seeds]
    steps = sorted(set.intersection(*(set(curve) for curve in chosen))) if chosen else []
    return [(step, math.fsum(curve[step] for curve in chosen) / len(chosen)) for step in steps]


OTHER_IMAGES = "The two likelihoods are of other held-out images (prior.training.selection)."
NO_PAIR = f"No {DIFFUSION} and {AUTOREGRESSIVE} rows on one tokenizer and backbone."
RUN = "`python -m bench.run"
CLAIMS = (
    Claim("fid-ar", "Absorbing diffusion beats the autoregressive prior on FID, with the same backbone.", "Table 4",
          f"{RUN} prior={DIFFUSION},{AUTOREGRESSIVE}`", beats_on_fid, "prior", of_convergence=True),
    Claim("nll-ar", "Absorbing diffusion beats the autoregressive prior on likelihood, with the same backbone.",
          "Table 4", f"{RUN} prior={DIFFUSION},{AUTOREGRESSIVE}`", beats_on_likelihood, "prior", of_convergence=True),
    Claim("steps", "FID falls as the number of sampling steps grows.", "Table 3",
          f"{RUN} prior={DIFFUSION} sampler.steps=8,16,32,64`", falls_with_steps, "prior"),
    Claim("half-steps", "Half the steps match the autoregressive prior's FID.", "Section 4.2.1",
          f"{RUN} prior={DIFFUSION},{AUTOREGRESSIVE} sampler.steps=32`", half_the_steps_match, "prior",
          of_convergence=True),
    Claim("temperature", "Sampling at temperature 0.9 lowers FID.", "Table 2",
          f"{RUN} prior={DIFFUSION} sampler.temperature=0.9,1.0`", temperature_lowers_fid, "prior"),
    Claim("reweighting", "The reweighted ELBO reaches a lower validation ELBO, sooner.", "Figure 5",
          f"{RUN} prior={DIFFUSION} prior.objective=reweighted_elbo,elbo`", reweighting_is_sooner, "prior",
          of_convergence=True),
    Claim("reconstruction", "DiffAug and the adaptive-weight limit together give the best reconstruction FID.",
          "Table 5", f"{RUN} source=reconstruction vq=default,lambda_max,diffaug,both`", both_reconstruct_best, "vq",
          of_convergence=True),
    *(Claim(contest.key, contest.text, "Section 4.2.1", MEASURED_BY, partial(is_faster, contest=contest))
      for contest in CONTESTS),
)
