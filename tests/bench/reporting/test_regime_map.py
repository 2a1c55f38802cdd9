"""Regimes of a results folder: table, figures and what is not pooled."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from bench.records import Measurement, save_record
from bench.report import main
from bench.reporting.regime_figures import figures_of
from bench.reporting.regime_map import name_of, regimes_of
from bench.reporting.regime_samples import samples_of_regimes
from bench.reporting.regime_table import frame
from bench.reporting.rows import gather
from bench.training.trajectories import SPLITS, Trajectory

STEPS = [100, 126, 159, 200, 252, 317, 400, 504, 635, 800]
GENERATOR = np.random.default_rng(0)
IMAGES = {split: GENERATOR.normal(0, 0.5, 40) for split in SPLITS}


def write(synthetic, root, prior, means, *, images=500, seed=0, rate=1e-3, order=None, select="best", more=(),
          selection=None, **options):
    """One record with a trajectory whose means are these, and `more` measurements."""
    spec = copy.deepcopy(synthetic.spec_of(prior, seed=seed))
    spec["prior"]["training"] = {**spec["prior"]["training"], "images": images, "learning_rate": rate,
                                 "measure_images": 80, "measure_at": "log", "measure_order": order, "select": select,
                                 **({"selection": selection} if selection else {})}
    spec["prior"]["options"] = {**spec["prior"]["options"], **options}
    kind = "exact" if prior in ("autoregressive", "any_order") or order else "bound_continuous"
    measured = Measurement("bits_per_token", means[-1], "demo-x", n=500, better="lower",
                           extra={"kind": kind})
    record = synthetic.make_record(root, "prior", spec, [measured, *more], created=f"2026-01-0{seed + 1}")
    regime = {"images": images, "tokens_per_parameter": 0.13, "passes": 100, "presentations": 800 * 64,
              "best_passes": 64}
    save_record(replace(record, provenance=record.provenance | {"regime": regime}), root)
    rows = {split: [mean + IMAGES[split] for mean in means] for split in SPLITS}
    folder = root / "media" / record.id
    folder.mkdir(parents=True, exist_ok=True)
    Trajectory(STEPS, rows, {split: [np.zeros(40)] * len(STEPS) for split in SPLITS}, kind).save(
        folder / "trajectory.npz")
    return folder


FALLS = [8.0, 7.6, 7.2, 6.9, 6.7, 6.5, 6.3, 6.2, 6.1, 6.0]
OVERFITS = [7.0, 6.6, 6.4, 6.3, 6.35, 6.5, 6.9, 7.4, 8.0, 9.0]


@pytest.fixture
def results(synthetic, tmp_path):
    """Absorbing falls below the autoregressive prior's best of 6.3 after 400 steps of 64 at 500 images."""
    write(synthetic, tmp_path, "autoregressive", OVERFITS)
    write(synthetic, tmp_path, "absorbing", FALLS)
    return tmp_path


def test_the_crossover_stands_in_the_table_with_both_bests(results):
    regime, = regimes_of(gather(results).groups[0], results)
    assert regime.crossing.passes == pytest.approx(400 * 64 / 500, rel=0.1)
    row = frame([regime]).iloc[0]
    shift = IMAGES["scoring"].mean()
    assert row["autoregressive, best bits a token"].startswith(f"{6.3 + shift:.3f} ±")
    assert row["absorbing, best bits a token"].startswith(f"≤ {6.0 + shift:.3f} ±")
    assert "26 passes" in row["autoregressive, best bits a token"]
    assert row["trainings"] == "1 + 1" and row["absorbing overtakes at"].endswith("]")


def test_trainings_of_other_numbers_of_images_or_rates_are_never_pooled(synthetic, results):
    write(synthetic, results, "autoregressive", OVERFITS, images=1500)
    write(synthetic, results, "absorbing", FALLS, rate=3e-3)
    regimes = regimes_of(gather(results).groups[0], results)
    assert sorted((r.images, len(r.sides)) for r in regimes) == [(500, 1), (500, 2), (1500, 1)]
    assert [r.crossing is None for r in regimes].count(True) == 2
    assert "not run" in frame(regimes).to_string()


def test_seeds_are_trainings_of_one_regime(synthetic, results):
    write(synthetic, results, "absorbing", [value - 0.02 for value in FALLS], seed=1)
    regime, = regimes_of(gather(results).groups[0], results)
    assert regime.crossing.trainings == (2, 1)


def test_figures_are_drawn_and_the_report_holds_table_and_figures(results, tmp_path):
    drawn = figures_of(gather(results).groups[0], results)
    assert [drawing.name.split("-cifar10")[0] for drawing in drawn] == ["regimes", "regime-map"]
    assert main([f"results_dir={results}", f"out={tmp_path / 'out'}", "page=false"]) == 0
    names = {path.name.split("-cifar10")[0] for path in (tmp_path / "out").rglob("*regime*")}
    assert names == {"regimes", "regime-map"}


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_a_damaged_trajectory_is_named_and_left_out(results, tmp_path, capsys, damage):
    path = next(results.glob("media/*/trajectory.npz"))
    if damage is None:
        path.unlink()
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(damage)
    assert main([f"results_dir={results}", f"out={tmp_path / 'out'}", "page=false", "figures=false"]) == 1
    assert "trajectory.npz" in capsys.readouterr().err.replace("\n", "")


def test_a_trajectory_that_unpacks_to_gigabytes_is_refused():
    import io
    import zipfile
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("steps.npy", bytes(300 * 2**20))
    with pytest.raises(ValueError, match="unpacks"):
        Trajectory.read(content.getvalue())


def test_exact_likelihoods_in_one_order_are_compared_apart_from_bounds(synthetic, results):
    write(synthetic, results, "autoregressive", OVERFITS, order="raster")
    write(synthetic, results, "absorbing", FALLS, order="raster")
    regimes = regimes_of(gather(results).groups[0], results)
    assert [list(regime.sides) for regime in regimes] == [["absorbing", "autoregressive"]] * 2
    cells = [row["absorbing, best bits a token"] for _, row in frame(regimes).iterrows()]
    assert sorted(cell.startswith("≤") for cell in cells) == [False, True]


def test_a_control_of_the_autoregressive_prior_does_not_take_its_place(synthetic, results):
    write(synthetic, results, "autoregressive", FALLS, input_mask=0.1)
    regimes = regimes_of(gather(results).groups[0], results)
    plain, = (regime for regime in regimes if regime.crossing)
    assert len(regimes) == 2 and plain.best("autoregressive").bits == pytest.approx(6.3 + IMAGES["scoring"].mean())


def test_the_best_control_of_the_autoregressive_prior_stands_beside_the_usual_one(synthetic, results):
    write(synthetic, results, "autoregressive", [value - 0.1 for value in OVERFITS], input_mask=0.1)
    write(synthetic, results, "autoregressive", [value + 0.1 for value in OVERFITS], dropout=0.3)
    regimes = regimes_of(gather(results).groups[0], results)
    table = frame(regimes)
    row, shift = table.iloc[0], IMAGES["scoring"].mean()
    assert len(table) == 1 and len(regimes) == 3
    assert row["autoregressive, best bits a token"].startswith(f"{6.3 + shift:.3f}")
    assert row["autoregressive, tuned"].startswith(f"{6.2 + shift:.3f}")
    assert row["autoregressive, tuned"].endswith("(input mask 0.1)")
    assert row["absorbing minus autoregressive, bits"].startswith("-0.300")
    assert row["absorbing minus tuned, bits"].startswith("-0.200")


def test_of_the_usual_controls_alone_nothing_is_tuned(results):
    table = frame(regimes_of(gather(results).groups[0], results))
    assert not [name for name in table.columns if "tuned" in name or name == "with"]


def test_the_any_order_prior_stands_beside_the_two_and_in_the_figure(synthetic, results):
    write(synthetic, results, "any_order", [value + 0.2 for value in FALLS])
    group = gather(results).groups[0]
    row = frame(regimes_of(group, results)).iloc[0]
    assert row["any_order, best bits a token"].startswith(f"{6.2 + IMAGES['scoring'].mean():.3f} ±")
    write(synthetic, results, "any_order", FALLS, order="raster", seed=1)   # another order measured: never pooled
    drawing, _ = figures_of(group, results)
    labels = [line.get_label() for line in drawing.draw().axes[0].lines]
    assert {"absorbing", "autoregressive", "any_order"} <= set(labels)


def test_an_annealed_order_is_a_prior_of_its_own():
    spec = {"prior": {"name": "any_order", "options": {"order": "annealed"}}}
    assert name_of(spec) == "any_order, annealed" and name_of({"prior": {"name": "any_order"}}) == "any_order"


def test_images_needed_are_told_where_the_other_prior_was_trained_on_other_numbers(synthetic, results):
    """It reaches 6.3 bits with 500 images, 5.9 with 2,000: 6.0 three quarters on, in log images."""
    write(synthetic, results, "autoregressive", [value - 0.4 for value in OVERFITS], images=2000)
    table = frame(regimes_of(gather(results).groups[0], results))
    needed = table.loc[table["images"] == "500", "images autoregressive needs, times"].iloc[0]
    assert needed.startswith(f"{4 ** 0.75:.2f} [")


def test_samples_at_best_and_at_last_stand_with_what_tells_copies(synthetic, results, tmp_path):
    def numbers(kid, copied):
        return [Measurement("kid", kid, "demo-x", n=500, better="lower", standard_error=0.001),
                Measurement("memorised_share", copied, "demo-x", n=500, extra={"rule": "tail of relative nearness"})]
    write(synthetic, results, "absorbing", FALLS, more=numbers(0.05, 0.01))
    write(synthetic, results, "absorbing", FALLS, more=numbers(0.03, 0.4), select="latest")
    table = samples_of_regimes(gather(results).groups[0])
    assert [row.label for row in table.rows] == ["absorbing, best weights (64 passes)",
                                                 "absorbing, last weights (100 passes)"]
    assert [(row.cells["kid"].value, row.cells["memorised_share"].value) for row in table.rows] == [(0.05, 0.01),
                                                                                                 (0.03, 0.4)]
    assert {row.section for row in table.rows} == {"500 images"}
    assert main([f"results_dir={results}", f"out={tmp_path / 'out'}", "figures=false"]) == 0
    assert list((tmp_path / "out/tables").glob("regime-samples-*.md"))
    page = (tmp_path / "out/index.html").read_text()
    assert 'id="regimes"' in page and "absorbing, last weights (100 passes)" in page


def test_a_page_without_regimes_has_no_section_of_them(synthetic, tmp_path):
    synthetic.make_record(tmp_path, "prior", synthetic.spec_of("absorbing", seed=0),
                          [Measurement("bits_per_token", 6.0, "demo-x", n=500, better="lower")], created="2026-01-01")
    assert main([f"results_dir={tmp_path}", f"out={tmp_path / 'out'}", "figures=false"]) == 0
    assert 'id="regimes"' not in (tmp_path / "out/index.html").read_text()


def test_trainings_measured_on_other_held_out_images_are_never_pooled_nor_compared(synthetic, results):
    """What chose and scored on all images, as records without the choice did, is apart from what had halves."""
    write(synthetic, results, "autoregressive", [value - 0.4 for value in OVERFITS], images=2000, selection="apart")
    write(synthetic, results, "absorbing", FALLS, seed=1, selection="shared")
    regimes = regimes_of(gather(results).groups[0], results)
    both, = (regime for regime in regimes if regime.crossing)
    assert both.crossing.trainings == (2, 1) and both.equivalence is None


def test_controls_are_told_by_what_both_priors_were_trained_with(synthetic, tmp_path):
    for rate in (3e-4, 1e-4, 2e-3):
        write(synthetic, tmp_path, "autoregressive", OVERFITS, rate=rate, images=1500)
    write(synthetic, tmp_path, "absorbing", FALLS, rate=3e-3)
    write(synthetic, tmp_path, "autoregressive", OVERFITS, rate=3e-3)
    both, = (regime for regime in regimes_of(gather(tmp_path).groups[0], tmp_path) if regime.crossing)
    assert both.controls == ""
