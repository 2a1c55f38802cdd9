"""What the report calls each metric, in which order, and to how many digits.

    column("fid").title   # "FID"

Metrics that are not listed (a plug-in's) come last, under their own name, and read their direction from the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Metric:
    """name: as in the records.  title: as printed.  decimals: where no interval says how many are meaningful.

    short, headline: its heading in a terminal, and whether it is shown there; the files and the page show every metric.
    about: one sentence for the reader of the page.
    """

    name: str
    title: str
    better: Better
    decimals: int
    headline: bool
    about: str
    short: str = ""


CATALOGUE = {metric.name: metric for metric in (
    Metric("fid", "FID", "lower", 2, True,
           "Fréchet distance between Inception features of samples and reference images.", "FID"),
    Metric("fid_infinity", "FID∞", "lower", 2, False, "FID with its finite-sample bias removed by the jackknife."),
    Metric("kid", "KID", "lower", 4, True,
           "Kernel distance of the same features: unbiased at every sample size.", "KID"),
    Metric("precision", "Precision", "higher", 3, True,
           "Share of samples that lie on the manifold of real images.", "P"),
    Metric("recall", "Recall", "higher", 3, True, "Share of real images that lie on the manifold of samples.", "R"),
    Metric("density", "Density", "higher", 3, True,
           "Precision that counts how many real neighbourhoods hold each sample.", "D"),
    Metric("coverage", "Coverage", "higher", 3, True,
           "Share of real images with a sample among their neighbours.", "C"),
    Metric("bits_per_token", "Bits / token", "lower", 3, True,
           "Negative log-likelihood of validation tokens; <= marks an upper bound.", "bits/tok"),
    Metric("bits_per_dim", "Bits / dim", "lower", 3, False,
           "Upper bound on the negative log-likelihood of validation images of 8 bits a channel."),
    Metric("bits_per_dim_5bit", "Bits / dim, 5-bit", "lower", 3, False,
           "The same of images reduced to 5 bits a channel, the paper's depth."),
    Metric("seconds_per_image", "s / image", "lower", 3, True, "One image at a time, prior only.", "s/img"),
    Metric("seconds_per_image_decoded", "s / image, decoded", "lower", 3, False,
           "One image at a time, prior and decoder."),
    Metric("seconds_per_image_uncached", "s / image, no cache", "lower", 3, False,
           "One image at a time, prior only, without key-value cache."),
    Metric("images_per_second", "Images / s", "higher", 2, False, "In batches, prior only."),
    Metric("images_per_second_decoded", "Images / s, decoded", "higher", 2, False, "In batches, prior and decoder."),
    Metric("network_evaluations", "Evaluations", "lower", 1, True,
           "Forward passes each image took part in.", "evals"),
    Metric("token_forwards", "Token-forwards", "lower", 0, False,
           "Token positions pushed through the backbone for each image."),
    Metric("lpips_nearest_mean", "LPIPS nearest", "none", 3, False,
           "Mean LPIPS distance of a sample to its nearest training image."),
    Metric("lpips_nearest_min", "LPIPS nearest, least", "none", 3, False,
           "The closest any sample comes to a training image."),
    Metric("memorised_share", "Memorised", "lower", 3, False,
           "Share of samples closer to training than held-out images are."),
    Metric("memorisation_auc", "Memorisation AUC", "none", 3, False,
           "Chance that a sample is closer to training than a held-out image is: 0.5 without copying."),
    Metric("parameters", "Parameters", "none", 0, False, "Of tokenizer and prior together."),
    Metric("psnr", "PSNR", "higher", 2, False, "Peak signal-to-noise ratio of reconstructions, in dB."),
    Metric("ssim", "SSIM", "higher", 3, False, "Structural similarity of reconstructions."),
    Metric("lpips", "LPIPS", "lower", 3, False,
           "Perceptual distance of reconstructions (or completions) to their originals.", "LPIPS"),
    Metric("border_ratio", "Border step", "none", 3, True,
           "Step across the mask's border, relative to the originals' there: 1 is a border that cannot be seen.",
           "border"),
    Metric("seam_ratio", "Seams", "none", 3, False,
           "On canvases, the step across window edges relative to the step elsewhere: 1 is no seam.", "seams"),
    Metric("codebook_usage", "Codes used", "higher", 3, False, "Share of the codebook that the validation images use."),
    Metric("codebook_perplexity", "Code perplexity", "higher", 1, False, "Exponential of the entropy of code use."),
    Metric("dead_codes", "Dead codes", "lower", 0, False, "Codes that no validation image uses."),
)}


def metric_of(name: str, better: Better = "none") -> Metric:
    """The catalogue's entry, or one made up for a metric that it does not know."""
    return CATALOGUE.get(name) or Metric(name, name.replace("_", " "), better, 4, False, "A metric of a plug-in.")


def in_order(names: set[str]) -> list[str]:
    """The catalogue's order first, then the others by name."""
    known = [name for name in CATALOGUE if name in names]
    return known + sorted(names - set(known))
