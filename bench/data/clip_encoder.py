"""The frozen text encoder of a CLIP (Radford et al. 2021), of a folder that transformers saved, through that package.

    encoder = ClipEncoder.load(Path("/models/clip-vit-large-patch14"))
    features, lengths = encoder(["a red fox", ""], length=16)   # (2, 16, 768) float32, (2,) int64: 5 and 0
    ClipCaptions.load(folder).embed(["a red fox"])              # (1, 768) at unit length, to be compared with images

Features are the last hidden states, as latent diffusion takes them. CLIP's attention is causal, so padding after the
end of a text changes none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.assets.transformers_models import loaded, transformers_package
from bench.data.encoder_files import CONFIG, TOKENIZER, EncoderConfig, check_folder, tokenizer_files
from bench.data.text_encoder import BATCH, TextEncoder, tokenizer_of
from bench.errors import InputError


class ClipEncoder(TextEncoder):
    """Texts -> the last hidden states of each of their positions, the start and the end included."""

    model: ClassVar[str] = "CLIPTextModel"

    def __init__(self, config: EncoderConfig, net: Any, tokenizer: Any):
        super().__init__(config, tokenizer)
        self.net = net

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        """Raises InputError for a folder that is no CLIP, or that lacks weights of its text half."""
        config, asked = check_folder(folder), f"the CLIP in {folder}"
        net = loaded(cls.model, folder, kind=config.kind, asked=asked).to(device)
        if (net.config.hidden_size, net.config.max_position_embeddings) != (config.width, config.max_length):
            raise InputError(f"{folder / CONFIG} contradicts itself: transformers reads another width or length than "
                             f"{config.width} and {config.max_length}. Save the model anew (save_pretrained).")
        return cls(config, net, _tokenizer(folder, asked))

    def encode(self, ids: Tensor, lengths: Tensor) -> Tensor:
        hidden = self.net(input_ids=ids.to(self.net.device)).last_hidden_state   # (B, M, D)
        given = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)   # (B, M)
        return hidden.cpu() * given.unsqueeze(-1)


class ClipCaptions(ClipEncoder):
    """Whole texts -> CLIP's joint space, that of bench.metrics.transformers_features' images."""

    model: ClassVar[str] = "CLIPTextModelWithProjection"

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """(n, P) float32 at unit length, n > 0; texts beyond max_length are cut."""
        ids, lengths = self.tokenize(texts, self.config.max_length)
        parts = [self.net(input_ids=part[:, : max(int(own.max()), 1)].to(self.net.device)).text_embeds
                 for part, own in zip(ids.split(BATCH), lengths.split(BATCH), strict=True)]
        return F.normalize(torch.cat(parts), dim=1).cpu()


def _tokenizer(folder: Path, asked: str) -> Any:
    """A `tokenizers.Tokenizer`, from tokenizer.json or made by transformers from vocab.json and merges.txt."""
    if tokenizer_files(folder) == (TOKENIZER,):
        return tokenizer_of(folder)
    cls = transformers_package(asked).CLIPTokenizerFast
    try:
        return cls.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:   # all that `tokenizers` raises
        raise InputError(f"{folder} has no tokenizer in vocab.json and merges.txt: {error}.") from None
