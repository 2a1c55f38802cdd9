"""Every column that can be printed: its unit, which way is better, its title and digits, declared once.

    columns("precision", "recall")["recall"].better   # "higher"

The metrics take their columns from here and so does the report, so the two cannot disagree; nothing here needs torch.
A plug-in's metric makes a `Column` of its own, and the report prints it under its own name, after the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Column:
    """unit, which way is better, and the version of the code that computes it (raised when its output changes).

    better: "none" where neither direction is a merit; then no row of a table is ever the best.
    title: as printed.  short, headline: its heading in a terminal, and whether it is shown there.
    decimals: where no interval says how many are meaningful.  about: one sentence for the reader of the page.
    moves_with_n: its expectation depends on the number of images, so only values of one N are compared.
    within_tokenizer: a number of tokens, so only rows of one tokenizer are compared.
    is_exact: a count without sampling error: two values that differ are apart even where neither has an interval.
    """

    unit: str
    better: Better
    version: int = 1
    title: str = ""
    decimals: int = 4
    headline: bool = False
    about: str = "A metric of a plug-in."
    short: str = ""
    moves_with_n: bool = False
    within_tokenizer: bool = False
    is_exact: bool = False


def _bits_per_dim(bits: int) -> Column:
    """Pixels reduced to so many bits a channel; numbers of different depths never share a column."""
    about = "Upper bound on the negative log-likelihood of validation images of 8 bits a channel." if bits == 8 else \
        f"The same of images reduced to {bits} bits a channel{', the depth of the paper' if bits == 5 else ''}."
    return Column("bits per dimension", "lower", 1, "Bits / dim" + (f", {bits}-bit" if bits < 8 else ""), 3,
                  about=about)


def pixel_column(bits: int) -> str:
    return "bits_per_dim" if bits == 8 else f"bits_per_dim_{bits}bit"


def _bits_in_order(order: str) -> Column:
    return Column("bits per token", "lower", 1, f"Bits / token, {order} order", 3, within_tokenizer=True,
                  about=f"Exact negative log-likelihood of tokens drawn one at a time in {order} order.")


def order_column(order: str) -> str:
    return f"bits_per_token_{order}_order"


def _retrieval(num: int) -> Column:
    return Column("share of samples", "higher", 1, f"R-precision, {num} captions", 3,
                  about=f"Share of samples to which CLIP finds their own caption nearest, among {num}.")


def retrieval_column(num: int) -> str:
    return f"caption_retrieval_{num}"


COLUMNS: dict[str, Column] = {
    "fid": Column("", "lower", 1, "FID", 2, True,
                  "Quality in one number: Fréchet distance between Inception features of samples and reference "
                  "images.", "FID", moves_with_n=True),
    "fid_infinity": Column("", "lower", 1, "FID∞", 2,
                           about="FID with its finite-sample bias removed by the jackknife."),
    "kid": Column("", "lower", 1, "KID", 4, True,
                  "Quality where images are few: kernel distance of the same features, unbiased at every sample size.",
                  "KID"),
    "kid_per_class": Column("", "lower", 1, "KID per class", 4,
                            about="Quality class by class: mean over classes of the KID of its samples and its real "
                                  "images."),
    "precision": Column("", "higher", 1, "Precision", 3, True,
                        "Fidelity alone: share of samples that lie on the manifold of real images.", "P",
                        moves_with_n=True),
    "recall": Column("", "higher", 1, "Recall", 3, True,
                     "Diversity alone: share of real images that lie on the manifold of samples.", "R",
                     moves_with_n=True),
    "density": Column("", "higher", 1, "Density", 3, True,
                      "Fidelity alone: precision that counts how many real neighbourhoods hold each sample; high for "
                      "samples that crowd a dense place.", "D", moves_with_n=True),
    "coverage": Column("", "higher", 1, "Coverage", 3, True,
                       "Diversity of faithful samples: share of real images with a sample among their neighbours.", "C",
                       moves_with_n=True),
    "clipped_density": Column("", "higher", 1, "Clipped density", 3, short="cD", moves_with_n=True,
                              about="Fidelity, as the share of good samples: density with clipped radii and counts, "
                                    "relative to real images."),
    "clipped_coverage": Column("", "higher", 1, "Clipped coverage", 3, short="cC", moves_with_n=True,
                               about="Diversity, as the share of samples drawn like real images that gives as much: "
                                     "coverage with clipped counts."),
    "mind": Column("", "lower", 1, "MIND", 3, short="MIND", moves_with_n=True,
                   about="Quality beyond mean and covariance: sliced Wasserstein distance of the features."),
    "cmmd": Column("", "lower", 1, "CMMD", 3, short="CMMD", moves_with_n=True,
                   about="Quality by CLIP's embeddings: their discrepancy under a Gaussian kernel, times 1,000."),
    "fld": Column("", "lower", 1, "FLD", 2, short="FLD", moves_with_n=True,
                  about="Feature likelihood divergence: 0 is as good as training images, copies are punished."),
    "fld_gap": Column("", "none", 1, "FLD gap", 2, moves_with_n=True,
                      about="How much less surprising training images are than held-out ones, given the samples: far "
                            "below 0 for copies."),
    "bits_per_token": Column("bits per token", "lower", 2, "Bits / token", 3, True,
                             "Negative log-likelihood of validation tokens; <= marks an upper bound.", "bits/tok",
                             within_tokenizer=True),
    "bits_per_image": Column("bits per image", "lower", 1, "Bits / image", 1, within_tokenizer=True,
                             about="The same of all tokens of an image together.", short="bits/img"),
    "condition_information": Column("bits per image", "none", 1, "Condition tells", 2, within_tokenizer=True,
                                    about="Bits by which the condition shortens an image's code, against the same "
                                          "prior without it."),
    **{order_column(order): _bits_in_order(order) for order in ("raster", "column", "spiral", "halton")},
    order_column("random"): Column("bits per token", "lower", 1, "Bits / token, random order", 3, within_tokenizer=True,
                                   about="Mean over random orders: an upper bound for tokens drawn in a random order."),
    order_column("best"): Column("bits per token", "lower", 1, "Bits / token, best order", 3, within_tokenizer=True,
                                 about="In the fixed order that was best on the other half of the images."),
    "bits_per_token_T": Column("bits per token", "lower", 1, "Bits / token, T steps", 3, within_tokenizer=True,
                               about="The upper bound of the T steps trained, which the paper prints."),
    **{pixel_column(bits): _bits_per_dim(bits) for bits in range(8, 0, -1)},
    "seconds_per_image": Column("s", "lower", 1, "s / image", 3, True, "One image at a time, prior only.", "s/img"),
    "seconds_per_image_decoded": Column("s", "lower", 1, "s / image, decoded", 3,
                                        about="One image at a time, prior and decoder."),
    "seconds_per_image_uncached": Column("s", "lower", 1, "s / image, no cache", 3,
                                         about="One image at a time, prior only, without key-value cache."),
    "images_per_second": Column("images/s", "higher", 1, "Images / s", 2, about="In batches, prior only."),
    "images_per_second_decoded": Column("images/s", "higher", 1, "Images / s, decoded", 2,
                                        about="In batches, prior and decoder."),
    "network_evaluations": Column("per image", "lower", 1, "Evaluations", 1, True,
                                  "Forward passes each image took part in.", "evals", is_exact=True),
    "token_forwards": Column("per image", "lower", 1, "Token-forwards", 0,
                             about="Token positions pushed through the backbone for each image.", is_exact=True),
    "class_accuracy": Column("share of samples", "higher", 2, "Class accuracy", 3,
                             about="Share of images that a small classifier of real ones takes for their class."),
    "cas": Column("share of held-out images", "higher", 1, "CAS", 3, moves_with_n=True,
                  about="Classification accuracy score: the share of real held-out images that classifiers get right "
                        "which were trained on samples and the classes asked for."),
    "caption_agreement": Column("cosine", "higher", 1, "Caption agreement", 3,
                                about="Likeness of a sample's caption to the caption of the training image that the "
                                      "sample looks most like."),
    **{retrieval_column(num): _retrieval(num) for num in (10, 100)},
    "clip_score": Column("", "higher", 1, "CLIPScore", 3,
                         about="2.5 times the cosine of image and caption in CLIP's joint space, 0 where it is "
                               "negative."),
    "lpips_nearest_mean": Column("LPIPS", "none", 1, "LPIPS nearest", 3,
                                 about="Mean LPIPS distance of a sample to its nearest training image."),
    "lpips_nearest_min": Column("LPIPS", "none", 1, "LPIPS nearest, least", 3,
                                about="The closest any sample comes to a training image."),
    "memorised_share": Column("share of samples", "none", 3, "Memorised", 3,
                              about="Share of samples nearer to a training image, for how near the next ones are, "
                                    "than all but 0.5% of held-out images are."),
    "memorisation_auc": Column("probability", "none", 3, "Memorisation AUC", 3,
                               about="Chance that a sample is nearer to training, in the same sense, than a held-out "
                                     "image is."),
    "authenticity": Column("share of samples", "none", 1, "Authentic", 3, moves_with_n=True,
                           about="Share of samples farther from their nearest training image than another is."),
    "copying_score": Column("", "none", 1, "C_T", 2, moves_with_n=True,
                            about="z-score of samples' distances to training images against those of held-out images: "
                                  "far below 0 for copies."),
    "parameters": Column("", "none", 1, "Parameters", 0, about="Of tokenizer and prior together."),
    "psnr": Column("dB", "higher", 1, "PSNR", 2, about="Peak signal-to-noise ratio of reconstructions, in dB."),
    "ssim": Column("", "higher", 1, "SSIM", 3, about="Structural similarity of reconstructions."),
    "lpips": Column("", "lower", 1, "LPIPS", 3, short="LPIPS",
                    about="Perceptual distance of reconstructions (or completions) to their originals."),
    "border_ratio": Column("", "none", 1, "Border step", 3, True, "Step across the mask's border, relative to the "
                           "originals' there: 1 is a border that cannot be seen.", "border"),
    "seam_ratio": Column("", "none", 1, "Seams", 3, short="seams", about="On canvases, the step across window edges "
                         "relative to the step elsewhere: 1 is no seam."),
    "codebook_usage": Column("share", "higher", 1, "Codes used", 3,
                             about="Share of the codebook that the validation images use.", is_exact=True),
    "codebook_perplexity": Column("codes", "higher", 1, "Code perplexity", 1,
                                  about="Exponential of the entropy of code use.", is_exact=True),
    "dead_codes": Column("codes", "lower", 1, "Dead codes", 0, about="Codes that no validation image uses.",
                         is_exact=True),
}
"""In the order in which a report prints them."""


def columns(*names: str) -> dict[str, Column]:
    """The declared columns of a metric, by name."""
    return {name: COLUMNS[name] for name in names}


def column_of(name: str, better: Better = "none") -> Column:
    """The declared column, or one made up for a plug-in's, whose direction its record tells."""
    return COLUMNS.get(name) or Column("", better, title=name.replace("_", " "))


def in_order(names: set[str]) -> list[str]:
    """The declared ones in their order, then the others by name."""
    return [name for name in COLUMNS if name in names] + sorted(names - set(COLUMNS))
