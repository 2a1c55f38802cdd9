"""Verdicts on records whose truth is known."""

import pytest

from bench.reporting.choice import fair_pair, plain_rows
from bench.reporting.claims import CLAIMS, arrival, ledger
from bench.reporting.estimates import Estimate
from bench.reporting.rows import gather
from bench.reporting.verdicts import outcome


def verdicts(results_dir, group=0):
    found = ledger(gather(results_dir).groups[group], results_dir)
    return {verdict.claim.key: verdict for verdict in found}


def write(synthetic, root, values, **spec):
    """One record of a prior; values: metric -> (value, error)."""
    measurements = [synthetic.measurement(m, v, e, "demo-x", bound="upper" if m == "bits_per_token" and
                                          spec["prior"] == "absorbing" else "") for m, (v, e) in values.items()]
    prior = spec.pop("prior")
    made = synthetic.spec_of(prior, **spec)
    return synthetic.make_record(root, "prior", made, measurements, created=f"2026-{len(list(root.rglob('*.json')))}")


@pytest.mark.parametrize("low, high, expected", [(-2, -1, "replicated"), (1, 2, "not replicated"),
                                                 (-1, 1, "inconclusive"), (None, None, "inconclusive")])
def test_a_verdict_is_where_the_interval_lies(low, high, expected):
    assert outcome(Estimate(-1.0, low, high, "")) == expected


def test_every_claim_of_the_protocols_is_judged_once(demo_results):
    assert set(verdicts(demo_results)) == {claim.key for claim in CLAIMS}
    assert len(CLAIMS) == 11


@pytest.mark.parametrize("fid, expected", [(190.0, "replicated"), (220.0, "not replicated"), (201.0, "inconclusive")])
def test_absorbing_against_autoregressive_on_fid(synthetic, tmp_path, fid, expected):
    write(synthetic, tmp_path, {"fid": (200.0, 1.0)}, prior="autoregressive")
    write(synthetic, tmp_path, {"fid": (fid, 1.0)}, prior="absorbing", steps=64)
    verdict = verdicts(tmp_path)["fid-ar"]
    assert verdict.verdict == expected
    assert verdict.value == pytest.approx(fid - 200)
    assert len(verdict.records) == 2


def test_a_comparison_at_fewer_than_all_steps_says_so(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (200.0, 1.0)}, prior="autoregressive")
    write(synthetic, tmp_path, {"fid": (210.0, 1.0)}, prior="absorbing", steps=16)
    assert verdicts(tmp_path)["fid-ar"].reason.startswith("at 16 of 64 steps")


def test_another_backbone_is_no_comparison_of_priors(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (200.0, 1.0)}, prior="autoregressive", options={"width": 512})
    write(synthetic, tmp_path, {"fid": (190.0, 1.0)}, prior="absorbing", steps=64)
    assert verdicts(tmp_path)["fid-ar"].verdict == "not run"


@pytest.mark.parametrize("unlike", [{"batch_size": 512}, {"learning_rate": 1e-4}])
def test_a_rival_trained_alike_goes_before_one_with_another_batch_or_learning_rate(synthetic, tmp_path, unlike):
    other = synthetic.spec_of("autoregressive", seed=1)
    usual = other["prior"]["training"]
    other["prior"] = other["prior"] | {"training": usual | unlike}
    for spec in (other, synthetic.spec_of("autoregressive"), synthetic.spec_of("absorbing", steps=64)):
        write_spec(synthetic, tmp_path, spec)
    assert pair_of(tmp_path)[1].spec["prior"]["training"] == usual


def test_a_rival_with_the_same_dropout_goes_before_one_without(synthetic, tmp_path):
    dropout = {"options": {"dropout": 0.1}}
    for spec in (synthetic.spec_of("autoregressive"), synthetic.spec_of("autoregressive", **dropout),
                 synthetic.spec_of("absorbing", steps=64, **dropout)):
        write_spec(synthetic, tmp_path, spec)
    assert pair_of(tmp_path)[1].option("prior", "dropout") == 0.1


def test_a_verdict_on_unequal_trainings_says_what_is_unequal(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (200.0, 1.0)}, prior="autoregressive", options={"dropout": 0.1})
    write(synthetic, tmp_path, {"fid": (210.0, 1.0)}, prior="absorbing", steps=64)
    assert "unequal training: dropout 0.0 and 0.1" in verdicts(tmp_path)["fid-ar"].reason


def test_weights_chosen_on_other_images_are_an_unequal_training(synthetic, tmp_path):
    for prior, selection in (("autoregressive", {}), ("absorbing", {"selection": "apart"})):
        spec = synthetic.spec_of(prior, steps=64 if selection else None)
        spec["prior"] = spec["prior"] | {"training": spec["prior"]["training"] | selection}
        write_spec(synthetic, tmp_path, spec)
    assert "unequal training: selection apart and shared" in verdicts(tmp_path)["fid-ar"].reason


def write_spec(synthetic, root, spec):
    synthetic.make_record(root, "prior", spec, [synthetic.measurement("fid", 200.0, 1.0, "demo-x")], created="2026")


def pair_of(root):
    group = gather(root).groups[0]
    return fair_pair(plain_rows(group, "absorbing"), plain_rows(group, "autoregressive"))


def test_without_interval_on_fid_kid_decides(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (200.0, None), "kid": (0.10, 0.001)}, prior="autoregressive")
    write(synthetic, tmp_path, {"fid": (190.0, None), "kid": (0.05, 0.001)}, prior="absorbing", steps=64)
    verdict = verdicts(tmp_path)["fid-ar"]
    assert verdict.verdict == "replicated" and verdict.effect.startswith("KID")
    assert "FID -10.0 has no interval" in verdict.reason


def test_without_any_interval_the_verdict_is_inconclusive(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (200.0, None)}, prior="autoregressive")
    write(synthetic, tmp_path, {"fid": (190.0, None)}, prior="absorbing", steps=64)
    assert verdicts(tmp_path)["fid-ar"].verdict == "inconclusive"


def test_three_seeds_are_paired(synthetic, tmp_path):
    for seed, shared in enumerate((0.0, 50.0, -50.0)):
        write(synthetic, tmp_path, {"fid": (200.0 + shared, None)}, prior="autoregressive", sampling_seed=seed)
        write(synthetic, tmp_path, {"fid": (197.0 + shared + seed / 10, None)}, prior="absorbing", steps=64,
              sampling_seed=seed)
    verdict = verdicts(tmp_path)["fid-ar"]
    assert (verdict.verdict, verdict.seeds) == ("replicated", "1 training, 3 sampling")


def test_sampling_seeds_are_no_repetitions_of_a_likelihood(synthetic, tmp_path):
    for seed in range(3):
        write(synthetic, tmp_path, {"bits_per_token": (6.0, 0.1)}, prior="autoregressive", sampling_seed=seed)
        write(synthetic, tmp_path, {"bits_per_token": (5.9 + seed / 1e4, 0.1)}, prior="absorbing", steps=64,
              sampling_seed=seed)
    verdict = verdicts(tmp_path)["nll-ar"]
    assert (verdict.verdict, verdict.seeds) == ("inconclusive", "1 training")


def reconstruct(synthetic, root, metric, value, **vq):
    made = synthetic.spec_of(None, vq_options=vq) | {"source": "reconstruction"}
    synthetic.make_record(root, "reconstruction", made, [synthetic.measurement(metric, value, 0.001, "demo-x")],
                          created="2026")


def test_half_of_the_steps_is_half_of_the_tokens(synthetic, tmp_path):
    reconstruct(synthetic, tmp_path, "fid", 100.0)
    write(synthetic, tmp_path, {"fid": (200.0, 0.5)}, prior="autoregressive")
    for steps, fid in ((8, 300.0), (32, 202.0), (64, 190.0)):
        write(synthetic, tmp_path, {"fid": (fid, 0.5)}, prior="absorbing", steps=steps)
    verdict = verdicts(tmp_path)["half-steps"]
    assert verdict.verdict == "replicated" and verdict.says.startswith("absorbing, 32 steps")
    assert verdict.border == pytest.approx(5.0)   # of what both priors add to the tokenizer's 100


def test_similar_is_judged_above_what_the_tokenizer_owns_and_not_of_the_raw_fid(synthetic, tmp_path):
    reconstruct(synthetic, tmp_path, "fid", 180.0)
    write(synthetic, tmp_path, {"fid": (200.0, 0.5)}, prior="autoregressive")
    write(synthetic, tmp_path, {"fid": (204.0, 0.5)}, prior="absorbing", steps=32)   # 2% of 200, but 20% of the excess
    verdict = verdicts(tmp_path)["half-steps"]
    assert verdict.verdict == "not replicated" and verdict.border == pytest.approx(1.0)
    assert "excess over the reconstructions (180.000) at most 5% greater" in verdict.reason


def test_where_kid_decides_its_excess_is_what_counts(synthetic, tmp_path):
    reconstruct(synthetic, tmp_path, "kid", 0.04)
    write(synthetic, tmp_path, {"kid": (0.06, 0.0001)}, prior="autoregressive")
    write(synthetic, tmp_path, {"kid": (0.0605, 0.0001)}, prior="absorbing", steps=32)
    verdict = verdicts(tmp_path)["half-steps"]
    assert verdict.verdict == "replicated" and verdict.border == pytest.approx(0.001)


@pytest.mark.parametrize("vq", [None, {"codebook_size": 16}])
def test_without_the_tokenizer_s_reconstructions_nothing_is_called_similar(synthetic, tmp_path, vq):
    if vq:
        reconstruct(synthetic, tmp_path, "fid", 180.0, **vq)
    write(synthetic, tmp_path, {"fid": (200.0, 0.5)}, prior="autoregressive")
    write(synthetic, tmp_path, {"fid": (190.0, 0.5)}, prior="absorbing", steps=32)
    verdict = verdicts(tmp_path)["half-steps"]
    assert verdict.verdict == "not run" and "reconstructions by the same tokenizer" in verdict.reason


def test_fid_over_steps_counts_every_increase(synthetic, tmp_path):
    for steps, fid in ((8, 240.0), (16, 230.0), (32, 235.0), (64, 220.0)):
        write(synthetic, tmp_path, {"fid": (fid, 1.0)}, prior="absorbing", steps=steps)
    verdict = verdicts(tmp_path)["steps"]
    assert verdict.verdict == "replicated" and "falls at 2 of 3" in verdict.reason


def test_temperature_pairs_rows_that_differ_in_nothing_else(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (220.0, 1.0)}, prior="absorbing", steps=64)
    write(synthetic, tmp_path, {"fid": (210.0, 1.0)}, prior="absorbing", steps=32, temperature=0.9)
    assert verdicts(tmp_path)["temperature"].verdict == "not run"
    write(synthetic, tmp_path, {"fid": (212.0, 1.0)}, prior="absorbing", steps=64, temperature=0.9)
    assert verdicts(tmp_path)["temperature"].value == pytest.approx(-8)


def test_the_reweighted_objective_is_judged_on_likelihood_with_its_curve_beside(synthetic, tmp_path):
    for objective, bits in (("elbo", 6.2), ("reweighted_elbo", 6.0)):
        made = synthetic.spec_of("absorbing", steps=64, options={"objective": objective})
        synthetic.make_record(tmp_path, "prior", made, [synthetic.measurement("bits_per_token", bits, 0.01, "demo-x")],
                              created=objective, curve_end=bits)
    verdict = verdicts(tmp_path)["reweighting"]
    assert verdict.verdict == "replicated" and "steps" in verdict.reason


def test_when_a_curve_arrives_is_told_of_the_mean_over_seeds_and_of_no_single_seed():
    theirs = {0: [(10, 6.0), (20, 5.0)], 1: [(10, 6.0), (20, 5.4)]}   # their mean ends at 5.2
    ours = {0: [(10, 5.5), (20, 4.8)], 1: [(10, 4.9), (20, 4.8)]}     # our mean is there at 10, seed 0 alone is not
    lowest = "reaches the lowest point of the other's"
    assert arrival(ours, theirs) == f"the mean curve of 2 trainings after 10 of 20 steps {lowest}"
    assert arrival({0: ours[0]}, theirs) == f"the curve after 20 of 20 steps {lowest}"
    assert arrival({0: [(10, 9.0)]}, {0: [(10, 8.0)]}) == f"the curve never {lowest}"
    assert arrival({0: ours[0]}, {1: theirs[1]}) == ""


def test_without_likelihoods_objectives_are_compared_where_curves_end_and_not_at_each_seed_s_best(synthetic, tmp_path):
    for objective, values in (("elbo", (6.0, 5.0)), ("reweighted_elbo", (4.0, 5.5))):
        made = synthetic.spec_of("absorbing", steps=64, options={"objective": objective})
        record = synthetic.make_record(tmp_path, "prior", made, [synthetic.measurement("fid", 9.0, 1.0, "demo-x")],
                                       created=objective, curve_end=5.0)
        (tmp_path / record.curves["prior"]).write_text("step,metric,value\n" + "".join(
            f"{step},validation_bits_per_token,{value}\n" for step, value in zip((10, 20), values, strict=True)))
    assert verdicts(tmp_path)["reweighting"].value == pytest.approx(0.5)


def test_likelihoods_of_other_held_out_images_are_not_set_against_each_other(synthetic, tmp_path):
    for prior, images in (("autoregressive", {}), ("absorbing", {"images": "scoring half"})):
        measured = synthetic.measurement("bits_per_token", 5.0, 0.01, "demo-x", extra={"kind": "exact", **images})
        synthetic.make_record(tmp_path, "prior", synthetic.spec_of(prior, steps=64 if images else None), [measured],
                              created=prior)
    verdict = verdicts(tmp_path)["nll-ar"]
    assert verdict.verdict == "not run" and "other held-out images" in verdict.reason


def test_the_reconstruction_claim_needs_all_four_tokenizers(synthetic, tmp_path):
    for index, (lam, aug, fid) in enumerate([(1e4, False, 5.0), (1.0, False, 8.0), (1e4, True, 5.1), (1.0, True, 2.0)]):
        assert index == 0 or verdicts(tmp_path)["reconstruction"].verdict == "not run"
        made = synthetic.spec_of(None, vq_options={"lambda_max": lam, "diffaug": aug})
        synthetic.make_record(tmp_path, "reconstruction", made | {"source": "reconstruction"},
                              [synthetic.measurement("fid", fid, 0.1, "demo-x")], created=str(index))
    verdict = verdicts(tmp_path)["reconstruction"]
    assert verdict.verdict == "replicated" and verdict.value == pytest.approx(-3.0)


def test_a_claim_that_was_not_run_says_which_command_would(synthetic, tmp_path):
    write(synthetic, tmp_path, {"fid": (220.0, 1.0)}, prior="absorbing", steps=64)
    assert "python -m bench.run" in verdicts(tmp_path)["fid-ar"].reason
