"""Records of runs that never happened, shaped like real ones: for tests of the report and for looking at it.

    python tests/bench/reporting/synthetic_records.py OUT [NUM_RECORDS]

The numbers follow a measured prototype (FID about 66 real, 179 reconstructed, 205-240 priors, 278 unigram).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bench.provenance import content_id
from bench.records import Measurement, Record, Sheet, Sweep, save_record, save_sweep

BETTER = {"fid": "lower", "kid": "lower", "precision": "higher", "recall": "higher", "density": "higher",
          "coverage": "higher", "bits_per_token": "lower"}
STEPS = (8, 16, 32, 64)


def spec_of(prior: str | None, *, dataset="cifar10", protocol="demo", steps=None, temperature=1.0, sampling_seed=0,
            seed=0, options=None, vq_options=None) -> dict:
    sampler = {"temperature": temperature, "seed": sampling_seed} | ({"steps": steps} if steps else {})
    backbone = {"width": 128, "num_layers": 4, "num_heads": 4}
    training = {"steps": 3000, "batch_size": 64, "learning_rate": 1e-3}
    return {"dataset": {"name": dataset, "path": None, "resolution": 32, "resize": "antialias"},
            "vq": {"name": "vqgan", "path": None, "training": training,
                   "options": {"codebook_size": 256, "channel_multipliers": [1, 2, 2], "lambda_max": 1.0,
                               "diffaug": True, **(vq_options or {})}},
            "prior": {"name": prior or "", "path": None, "options": backbone | (options or {}), "training": training},
            "source": "prior", "sampler": sampler if prior else {"seed": sampling_seed},
            "sampling": {"chunk": 100, "shards": 1},
            "protocol": {"name": protocol, "extractor": "inception-v3-compat", "num_fake": 500, "num_real": 1000},
            "metrics": {"names": ["fid", "kid", "prdc", "nll", "speed", "neighbours"], "memory_gb": 2.0},
            "seed": seed, "device": "auto", "results_dir": "results/runs"}


def measurement(metric: str, value: float | None, error: float | None, protocol: str, **more) -> Measurement:
    interval = {}
    if error is not None and value is not None:
        interval = {"ci_low": value - 1.96 * error, "ci_high": value + 1.96 * error, "standard_error": error}
    return Measurement(metric, value, protocol, n=500, better=BETTER.get(metric, "none"), **interval, **more)


def fidelity(fid: float, protocol: str, rng: np.random.Generator, *, with_interval=True) -> list[Measurement]:
    fid = float(fid + rng.normal(0, 0.8))
    error = 1.6 if with_interval else None
    p = float(np.clip(1.05 - fid / 320 + rng.normal(0, .01), 0.02, 1))
    return [measurement("fid", fid, error, protocol, note="" if error else "fewer samples than features: no interval"),
            measurement("kid", (fid - 60) * 0.00105, 0.004, protocol),
            measurement("precision", p, 0.02, protocol), measurement("recall", p * 0.7, 0.02, protocol),
            measurement("density", p * 1.1, 0.03, protocol), measurement("coverage", p * 0.8, 0.02, protocol)]


def speed(evaluations: float, protocol: str, *, cached: bool) -> list[Measurement]:
    seconds = evaluations * (0.0021 if cached else 0.0043)
    found = [measurement("seconds_per_image", seconds, seconds * 0.02, protocol, unit="s"),
             measurement("seconds_per_image_decoded", seconds + 0.012, seconds * 0.02, protocol, unit="s"),
             measurement("images_per_second", 9 / seconds, None, protocol),
             measurement("network_evaluations", evaluations, None, protocol),
             measurement("token_forwards", evaluations if cached else evaluations * 64, None, protocol)]
    return found + ([measurement("seconds_per_image_uncached", seconds * 5.1, seconds * 0.1, protocol, unit="s")]
                    if cached else [])


def speed_comparison(root: Path, seconds: dict[tuple[str, str], list[float]], *, ours: Record, theirs: Record,
                     created: str, threads=2, batch=32) -> Record:
    """Sides timed in turn. seconds: ("ours" or "theirs", method or cache) -> seconds an image of each round.

    Of a batch an image costs a fifth of what it costs alone.
    """
    sides, measurements = [], []
    for index, ((which, setting), rounds) in enumerate(seconds.items()):
        record = ours if which == "ours" else theirs
        changes = {"method": setting} if which == "ours" else {"cache": setting == "cached"}
        sampler = {k: v for k, v in record.spec["sampler"].items() if k != "seed"} | changes
        sides.append({"label": f"{record.label}, {setting}", "record": record.id, "sampler": sampler,
                      "prior": record.provenance["artefacts"]["prior"]["key"]})
        for metric, size, values in (("seconds_per_image", 1, rounds),
                                     ("images_per_second", batch, [5 / second for second in rounds])):
            extra = {"side": index, "batch": size, "rounds": values, "threads": threads, "device": "two quiet cores"}
            measurements.append(Measurement(metric, sorted(values)[len(values) // 2], "speed-in-turn-1",
                                            n=len(values), extra=extra))
    spec = {"dataset": ours.spec["dataset"], "protocol": {"name": "speed-in-turn-1"}, "sides": sides}
    record = Record(f"speed-{content_id([created, ours.id, theirs.id])}", created, "speed comparison",
                    f"{ours.label} against {theirs.label}", spec, "", "ok", tuple(measurements), {"threads": threads})
    save_record(record, root)
    return record


def likelihood(value: float, protocol: str, *, bound: bool) -> list[Measurement]:
    if not bound:
        return [measurement("bits_per_token", value, 0.012, protocol)]
    return [measurement("bits_per_token", value, 0.012, protocol, bound="upper", extra={"monte_carlo_se": 0.003})]


def pictures(root: Path, record_id: str, rng: np.random.Generator, blur: float, names=("samples",)) -> dict[str, Sheet]:
    shapes = {"samples": (10, 10), "neighbours": (8, 11), "reconstruction": (2, 10), "filmstrip": (3, 9),
              "inpaint": (4, 6), "canvas": (1, 2)}
    sheets = {}
    for name in names:
        rows, columns = shapes[name]
        tile = (64, 96) if name == "canvas" else (32, 32)
        folder = root / "media" / record_id
        folder.mkdir(parents=True, exist_ok=True)
        cells = [[_blob(rng, tile, blur) for _ in range(columns)] for _ in range(rows)]
        Image.fromarray(np.concatenate([np.concatenate(line, 1) for line in cells])).save(folder / f"{name}.png")
        labels = tuple(f"{0.1 + i / 100:.3f}" for i in range(rows * columns)) if name == "neighbours" else ()
        sheets[name] = Sheet(f"media/{record_id}/{name}.png", rows, columns, tile, labels)
    return sheets


def _blob(rng: np.random.Generator, tile: tuple[int, int], blur: float) -> np.ndarray:
    """A coloured disc before a sky: (h, w, 3) uint8; the larger `blur`, the noisier."""
    y, x = np.mgrid[: tile[0], : tile[1]] / tile[0]
    sky, ground, disc = rng.uniform(60, 230, (3, 3))
    image = np.where((y > rng.uniform(.5, .8))[..., None], ground, sky * (1.1 - .4 * y)[..., None])
    near = (x - rng.uniform(.2, .8)) ** 2 + (y - rng.uniform(.3, .7)) ** 2 < rng.uniform(.02, .08)
    image = np.where(near[..., None], disc, image) + rng.normal(0, 6 + 30 * blur, (*tile, 3))
    return image.clip(0, 255).astype(np.uint8)


def curve(root: Path, record_id: str, final: float, seed: int) -> dict[str, str]:
    folder = root / "media" / record_id
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = ["step,metric,value"]
    for step in range(250, 3001, 250):
        value = final + 2.2 * np.exp(-step / 700) + rng.normal(0, .01)
        lines += [f"{step},train_loss,{value * 0.7:.4f}", f"{step},validation_bits_per_token,{value:.4f}"]
    (folder / "prior.csv").write_text("\n".join(lines) + "\n")
    return {"prior": f"media/{record_id}/prior.csv"}


def make_record(root: Path, role: str, spec: dict, measurements: list[Measurement], *, created: str, status="ok",
                message="", media=(), blur=0.3, curve_end: float | None = None, label: str | None = None) -> Record:
    run_key = content_id([role, spec, label]) if status in ("ok", "partial") else ""
    record_id = content_id([run_key, role, spec, created])
    rng = np.random.default_rng(int(record_id[:8], 16))
    label = label or f"{spec['prior']['name'] or role} {spec['sampler'].get('steps', '')}".strip()
    curves = curve(root, record_id, curve_end, spec["seed"]) if curve_end else {}
    record = Record(
        record_id, created, role, label, spec, run_key, status, tuple(measurements),
        {"artefacts": {"tokenizer": {"key": "a1b2c3", "wall_seconds": 240.5, "built_at": created},
                       "prior": {"key": content_id(spec["prior"]), "wall_seconds": 121.0, "built_at": created}},
         "git_commit": "0123456789abcdef0123456789abcdef01234567", "git_dirty": False,
         "parameters": {"tokenizer": 1_204_003} | ({"prior": 834_560} if role == "prior" else {}),
         "versions": {"torch": "2.13.0", "python": "3.12.3", "vq-prior-bench": "0.1.0"},
         "hardware": {"cpu": "two quiet cores", "threads": 2, "device": "cpu", "memory_gb": 16},
         "protocol": {"id": f"{spec['protocol']['name']}-7c1d", "num_fake": 500, "num_real": 1000}},
        pictures(root, record_id, rng, blur, media), curves, message)
    save_record(record, root)
    return record


def write_demo(root: Path, *, seeds=(0,), dataset="cifar10", protocol="demo", media=True,
               intervals=True) -> list[Record]:
    """One data set under one protocol: real, reconstruction, unigram, autoregressive, absorbing over steps, 0.9."""
    rng = np.random.default_rng(content_seed(dataset, protocol))
    pid = f"{protocol}-{dataset}-7c1d"
    stamp = iter(f"2026-01-02T{h:02d}:{m:02d}:00Z" for h in range(24) for m in range(60))
    common = {"dataset": dataset, "protocol": protocol}
    samples = ("samples",) if media else ()
    every_picture = ("samples", "neighbours", "filmstrip", "inpaint", "canvas")

    def make(role, spec, values, **more):
        records.append(make_record(root, role, spec, values, created=next(stamp), **more))

    records: list[Record] = []
    make("real", spec_of(None, **common) | {"source": "real"}, fidelity(65.8, pid, rng, with_interval=intervals),
         media=samples, blur=0)
    make("reconstruction", spec_of(None, **common) | {"source": "reconstruction"},
         fidelity(150, pid, rng, with_interval=intervals)
         + [measurement(m, v, None, pid) for m, v in [("psnr", 21.4), ("ssim", .71), ("lpips", .12),
            ("codebook_usage", .98), ("codebook_perplexity", 171.3)]],
         media=("samples", "reconstruction") if media else (), blur=.1)
    for k in seeds:
        for prior, fid, nll, cached, evals in (("unigram", 278, 7.10, False, 1),
                                               ("autoregressive", 204.5, 5.76, True, 64)):
            more = {"curve_end": nll} if prior == "autoregressive" else {}
            make("prior", spec_of(prior, sampling_seed=k, **common), fidelity(fid, pid, rng, with_interval=intervals)
                 + likelihood(nll, pid, bound=False) + speed(evals, pid, cached=cached)
                 + [measurement("lpips_nearest_mean", .21, .004, pid), measurement("memorised_share", 0.0, None, pid)],
                 media=("samples", "neighbours") if media and prior != "unigram" else samples, blur=fid / 300, **more)
        for steps, temperature, fid in [(8, 1., 238), (16, 1., 231), (32, 1., 227), (64, 1., 224.5), (64, .9, 219)]:
            evals = steps * (1 - (1 - 1 / steps) ** 64)
            make("prior", spec_of("absorbing", steps=steps, temperature=temperature, sampling_seed=k,
                                  options={"objective": "reweighted_elbo"}, **common),
                 fidelity(fid, pid, rng, with_interval=intervals) + likelihood(6.08, pid, bound=True)
                 + speed(evals, pid, cached=False) + [measurement("lpips_nearest_mean", .22, .004, pid),
                                                      measurement("memorised_share", 0.002, .002, pid)],
                 media=every_picture if media and steps == 64 else samples,
                 blur=fid / 300, curve_end=6.08)
    ours, theirs = (next(r for r in records if r.spec["prior"]["name"] == name and r.spec["sampler"].get("steps") ==
                         steps) for name, steps in (("absorbing", 32), ("autoregressive", None)))
    seconds = {("ours", "event"): 0.1196, ("ours", "loop"): 0.1376, ("theirs", "cached"): 0.1344,
               ("theirs", "uncached"): 0.6854}
    speed_comparison(root, {side: [s * (1 + k / 500) for k in range(9)] for side, s in seconds.items()}, ours=ours,
                     theirs=theirs, created=next(stamp))
    cells = tuple({"run_key": r.run_key, "label": r.label, "overrides": [], "spec": r.spec, "unsupported": ""}
                  for r in records)
    command = "python -m bench.run preset=demo"
    save_sweep(Sweep(content_id([dataset, protocol]), "2026-01-02T00:00:00Z", command, cells), root)
    return records


def write_troubled(root: Path) -> None:
    """A failed run, one unsupported, one partial, and a cell that a sweep asked for and never got."""
    pid = "demo-cifar10-7c1d"
    failed = make_record(root, "prior", spec_of("vq_diffusion", steps=25), [], created="2026-01-03T00:00:00Z",
                         status="failed",
                         message="Traceback (most recent call last):\n  ...\nMemoryError: 12 GB asked for")
    unsupported = make_record(root, "prior", spec_of("autoregressive", options={"order": "random"}), [],
                              created="2026-01-03T00:01:00Z", status="unsupported",
                              message="autoregressive decodes in raster order only")
    rng = np.random.default_rng(5)
    partial = make_record(root, "prior", spec_of("uniform", steps=64),
                          fidelity(240, pid, rng) + [measurement("bits_per_token", None, None, pid,
                                                                 note="this prior has no bound yet")],
                          created="2026-01-03T00:02:00Z", status="partial", message="speed was interrupted")
    save_sweep(Sweep("troubled", "2026-01-03T00:00:00Z", "python -m bench.run ...", (
        *[{"run_key": r.run_key, "label": r.label, "overrides": [], "spec": r.spec}
          for r in (failed, unsupported, partial)],
        {"run_key": "never", "label": "absorbing 128", "overrides": ["sampler.steps=128"], "unsupported": "",
         "spec": spec_of("absorbing", steps=128, options={"objective": "reweighted_elbo"})},
        {"run_key": "", "label": "unigram 8", "overrides": ["prior=unigram", "sampler.steps=8"],
         "unsupported": "unigram has no sampler.steps", "spec": spec_of("unigram", temperature=0.5)})), root)


def damage(root: Path) -> Path:
    path = root / "records" / "deadbeef.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "id": "deadbeef"})[:-4])
    return path


def write_many(root: Path, num_records: int) -> None:
    """At least so many records, over several data sets and protocols and many seeds."""
    pairs = [(d, p) for d in ("cifar10", "digits", "emoji") for p in ("demo", "small")]
    seeds = range(-(-num_records // (len(pairs) * 7)))
    for index, (dataset, protocol) in enumerate(pairs):
        write_demo(root, dataset=dataset, protocol=protocol, seeds=seeds, media=index == 0)


def content_seed(*parts: str) -> int:
    return int(content_id(list(parts))[:8], 16)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if len(sys.argv) > 2:
        write_many(target, int(sys.argv[2]))
    else:
        write_demo(target, seeds=(0, 1, 2))
        write_demo(target, dataset="digits", intervals=False)
        write_demo(target, protocol="small", media=False)
        write_troubled(target)
        damage(target)
