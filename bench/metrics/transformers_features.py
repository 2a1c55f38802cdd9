"""DINOv2 and CLIP features of the user's weights, through transformers (the optional extra `text`).

    extractor = TransformersExtractor("dinov2:/models/dinov2-large")    # FD-DINOv2 (Stein et al. 2023, 2306.04675)
    extractor = TransformersExtractor("clip:/models/clip-vit-large-patch14-336")   # CMMD (2401.09603)

DINOv2: the class token after the last normalisation, of pictures resized to 224 pixels by PIL's bicubic filter.
CLIP: the projected image embedding at unit length, of pictures resized to the model's size by a bicubic filter
without antialiasing.  Each is what the metric was published with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bench.assets.transformers_models import loaded
from bench.metrics.extractor_names import folder_of, weights_of
from bench.metrics.inception import check_images
from bench.metrics.lpips_embedding import full_precision

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
DINOV2_SIDE = 224


class TransformersExtractor:
    """Features of a DINOv2 or CLIP folder.  Nothing is downloaded, and no code of the folder is run."""

    def __init__(self, name: str, *, device: str | torch.device = "cpu"):
        folder = folder_of(name)
        assert folder is not None, name
        self.name, self.kind = name, name.partition(":")[0]
        self.weights = weights_of(folder)
        self.device = torch.device(device)
        cls = "Dinov2Model" if self.kind == "dinov2" else "CLIPVisionModelWithProjection"
        self.net: Any = loaded(cls, folder, kind=self.kind, asked=f"protocol.extractor={name}").to(self.device)
        config = self.net.config
        self.num_features = config.hidden_size if self.kind == "dinov2" else config.projection_dim
        self.side = DINOV2_SIDE if self.kind == "dinov2" else config.image_size
        self.resize = f"{'pil-bicubic' if self.kind == 'dinov2' else 'bicubic-plain'}-{self.side}"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) uint8 -> (b, D) float32."""
        check_images(images)
        with full_precision():
            if self.kind == "dinov2":
                pixels = _normalised(_pil_bicubic(images, self.side).to(self.device), *IMAGENET)
                return self.net(pixel_values=pixels).last_hidden_state[:, 0].float()
            resized = F.interpolate(images.to(self.device).float() / 255, self.side, mode="bicubic")
            return F.normalize(self.net(pixel_values=_normalised(resized, *CLIP)).image_embeds.float(), dim=1)


def _pil_bicubic(images: Tensor, side: int) -> Tensor:
    """(b, 3, side, side) float32 in 0..1."""
    found = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
             for image in images.cpu().permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


def _normalised(pixels: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    shift, scale = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (mean, deviation))
    return (pixels - shift) / scale
