"""A verdict says no more than was measured: bound, regime, number of trainings, number of verdicts."""

import dataclasses

import pytest

from bench.records import Measurement
from bench.reporting.claims import CLAIMS, gap_by_step, ledger
from bench.reporting.readme import block, claims_markdown
from bench.reporting.regimes import regime_of
from bench.reporting.rows import Row, gather
from bench.reporting.speeds import CONTESTS
from bench.reporting.verdicts import multiplicity


def judged(root, key, group=0):
    book = gather(root)
    return next(v for v in ledger(book.groups[group], root, book.groups) if v.claim.key == key)


def write(synthetic, root, prior, metric, value, error, *, seeds=(0,), steps=None, training=None, protocol="demo-x",
          **more):
    for seed in seeds:
        spec = synthetic.spec_of(prior, steps=steps, seed=seed)
        spec["prior"]["training"] = spec["prior"]["training"] | (training or {})
        spec["dataset"]["path"] = None
        found = Measurement(metric, value + seed, protocol, n=500, ci_low=value + seed - 1.96 * error,
                            ci_high=value + seed + 1.96 * error, standard_error=error, **more)
        synthetic.make_record(root, "prior", spec, [found], created=f"{prior}{seed}{steps}")


def likelihoods(synthetic, root, bound, exact, **curves):
    write(synthetic, root, "absorbing", "bits_per_token", bound, 0.01, steps=64, bound="upper",
          extra={"kind": "bound_T"})
    write(synthetic, root, "autoregressive", "bits_per_token", exact, 0.01, extra={"kind": "exact"})
    return judged(root, "nll-ar")


def test_a_bound_above_an_exact_value_refutes_nothing_and_its_line_says_so(synthetic, tmp_path):
    verdict = likelihoods(synthetic, tmp_path, 6.05, 5.56)
    assert verdict.verdict == "inconclusive" and verdict.effect == "Bits / token at most +0.490"
    line = claims_markdown([verdict])
    assert "at most +0.490" in line and "an upper bound above an exact value refutes nothing" in line
    assert "bound_T: an upper bound" in verdict.reason and "against exact" in verdict.reason


def test_a_bound_below_an_exact_value_settles_the_claim(synthetic, tmp_path):
    verdict = likelihoods(synthetic, tmp_path, 5.50, 5.56)
    assert verdict.verdict == "replicated" and "refutes nothing" not in verdict.reason


def fids(synthetic, root, *, seeds=(0,), **training):
    write(synthetic, root, "absorbing", "fid", 220.0, 1.0, steps=64, seeds=seeds, training=training)
    write(synthetic, root, "autoregressive", "fid", 200.0, 1.0, seeds=seeds, training=training)
    return judged(root, "fid-ar")


def test_a_claim_about_convergence_is_at_most_not_seen_at_so_many_passes(synthetic, tmp_path):
    verdict = fids(synthetic, tmp_path, steps=5000, batch_size=64)
    assert verdict.verdict == "not replicated" and verdict.words == "not at 6 passes over the data, one training"
    line = claims_markdown([verdict])
    assert "outside the paper's regime: 6 passes over 50,000 images, 5,000 steps (0.25% of the paper's)" in line
    assert "not replicated" not in line


def test_a_claim_about_sampling_is_not_replicated_in_plain_words(synthetic, tmp_path):
    for steps, fid in ((8, 200.0), (64, 220.0)):
        write(synthetic, tmp_path, "absorbing", "fid", fid, 1.0, steps=steps)
    verdict = judged(tmp_path, "steps")
    assert verdict.words == "not replicated, one training" and "outside the paper's regime" in verdict.reason


def test_the_record_tells_the_regime_before_its_configuration_does(synthetic, tmp_path):
    spec = synthetic.spec_of("absorbing", steps=8)
    record = synthetic.make_record(tmp_path, "prior", spec, [], created="1")
    told = {"images": 32, "presentations": 64, "passes": 2.0, "tokens_per_parameter": 0.5}
    record = dataclasses.replace(record, provenance=record.provenance | {"regime": told})
    regime = regime_of(Row("k", "prior", "absorbing", "", "ok", spec=spec, records=(record,)), "prior")
    assert (regime.images, regime.passes, regime.tokens_per_parameter) == (32, 2.0, 0.5)


@pytest.mark.parametrize("dataset, limit, passes", [("cifar10", None, 3.84), ("cifar10", 20_000, 9.6),
                                                    ("folder", 1_000, 192.0), ("folder", None, None)])
def test_passes_of_older_records_come_from_steps_batch_and_images(synthetic, dataset, limit, passes):
    spec = synthetic.spec_of("absorbing", dataset=dataset)
    spec["dataset"]["max_train"] = limit
    regime = regime_of(Row("k", "prior", "absorbing", "", "ok", spec=spec), "prior")
    assert regime.passes == (None if passes is None else pytest.approx(passes))
    assert passes is not None or regime.budget == "after 3,000 steps"


def test_the_papers_own_settings_are_its_regime(synthetic):
    spec = synthetic.spec_of("absorbing", dataset="ffhq")
    spec["prior"]["training"] = {"steps": 2_000_000, "batch_size": 20, "images": 66_500}
    assert regime_of(Row("k", "prior", "absorbing", "", "ok", spec=spec), "prior").is_papers
    spec["prior"]["training"]["images"] = 10_000
    assert not regime_of(Row("k", "prior", "absorbing", "", "ok", spec=spec), "prior").is_papers


def test_an_imported_model_has_no_regime(synthetic):
    spec = synthetic.spec_of("absorbing")
    spec["prior"]["path"] = "absorbing_ema.th"
    assert regime_of(Row("k", "prior", "absorbing", "", "ok", spec=spec), "prior") is None


def test_three_trainings_a_side_are_not_called_one(synthetic, tmp_path):
    assert "one training" not in fids(synthetic, tmp_path, seeds=(0, 1, 2)).words


def tokenizers(synthetic, root):
    for index, (lam, aug, fid) in enumerate([(1e4, False, 9.0), (1.0, False, 8.0), (1e4, True, 9.1), (1.0, True, 2.0)]):
        made = synthetic.spec_of(None, vq_options={"lambda_max": lam, "diffaug": aug}) | {"source": "reconstruction"}
        synthetic.make_record(root, "reconstruction", made, [synthetic.measurement("fid", fid, 0.1, "demo-x")],
                              created=str(index))


def test_table_five_from_one_training_a_side_says_so_and_how_far_trainings_differ(synthetic, tmp_path):
    tokenizers(synthetic, tmp_path)
    verdict = judged(tmp_path, "reconstruction")
    assert verdict.words == "replicated, one training" and "differ by" not in verdict.reason
    for seed, fid in enumerate((100.0, 102.0, 104.0)):
        made = synthetic.spec_of(None, protocol="wide", seed=seed) | {"source": "reconstruction"}
        synthetic.make_record(tmp_path, "reconstruction", made, [synthetic.measurement("fid", fid, 1.0, "wide-y")],
                              created=f"w{seed}")
    verdict = judged(tmp_path, "reconstruction")
    assert "two single trainings differ by 2.83 in FID (standard deviation, from 3 trainings" in \
        claims_markdown([verdict])


def test_a_speed_depends_on_no_training(demo_results):
    verdict = judged(demo_results, "speed")
    assert verdict.words == verdict.verdict and "regime" not in verdict.reason


def test_the_gap_is_shown_as_it_went_while_training():
    ours, theirs = ([(step, 6 + shift - step / 1e4) for step in range(1000, 6000, 1000)] for shift in (0.5, 0.0))
    assert gap_by_step({0: ours}, {0: theirs}).startswith("gap while training: +0.50 at 1,000 steps, +0.50 at 2,000")
    assert gap_by_step({0: ours}, {1: theirs}) == ""


def test_the_readme_says_how_many_verdicts_are_read_at_once(demo_results):
    book = gather(demo_results)
    verdicts = [v for group in book.groups for v in ledger(group, demo_results)]
    run = [v for v in verdicts if v.verdict != "not run"]
    assert multiplicity(verdicts).startswith(f"Multiplicity: {len(run)} verdicts ({len(run)} claims, protocols: 1)")
    assert multiplicity(verdicts) in block(book, "c") and "The paper's priors" in block(book, "c")


def test_every_claim_that_is_about_trained_models_names_whose_training():
    assert [claim.key for claim in CLAIMS if not claim.trained] == [contest.key for contest in CONTESTS]
