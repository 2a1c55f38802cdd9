"""An lpips.LPIPS in miniature, for searches that need some: one layer, whose features are the pixels and a constant."""

import torch


class TinyLpips(torch.nn.Module):
    """LPIPS looks at directions of features: the constant tells light grey from dark."""

    def __init__(self):
        super().__init__()
        self.net = lambda images: [torch.cat([images + 1.5, torch.ones_like(images[:, :1])], 1)]   # (B, 4, H, W)
        self.scaling_layer = torch.nn.Identity()
        head = torch.nn.Sequential(torch.nn.Conv2d(4, 1, 1, bias=False))
        torch.nn.init.ones_(head[0].weight)
        self.lins = torch.nn.ModuleList([torch.nn.Module()])
        self.lins[0].model = head
        self.lins[0].forward = head.forward
        self.requires_grad_(False)
