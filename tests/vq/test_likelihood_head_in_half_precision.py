"""Fine-tuning the log-sigma head in half precision: what is frozen stays what `log_likelihood` will compute."""

import torch

from vq.options import VQGANOptions
from vq.training import LikelihoodTraining
from vq.vqgan import VQGAN

OPTIONS = VQGANOptions(channels=8, channel_multipliers=(1, 2), norm_groups=4, disc_channels=4, num_res_blocks=1,
                       attention_resolutions=(), embedding_dim=8, codebook_size=64, likelihood_head=True)


def test_half_precision_reaches_the_head_alone():
    torch.manual_seed(0)
    tokenizer = VQGAN(options=OPTIONS, resolution=16).eval()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    task = LikelihoodTraining(tokenizer, bits=8, learning_rate=1e-3)
    fed = []

    def head(features):
        fed.append(features)
        return tokenizer.likelihood_head(features)

    task._bits_per_dim(head, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task._bits_per_dim(head, images)
    assert fed[1].dtype == torch.float32 and torch.equal(fed[0], fed[1])
