"""A CLIP of a few thousand random weights, in the files that transformers saves: its tokenizer knows small letters."""

import json
import string

import torch

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = string.ascii_lowercase
SYMBOLS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "fo", "fox</w>", START, END]
LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
          "projection_dim": 12}


def save_clip(transformers, folder, *, text_alone=False, seed=0):
    """Writes a whole CLIP, or its text half alone; with vocab.json and merges.txt."""
    torch.manual_seed(seed)
    text = {**LAYERS, "vocab_size": len(SYMBOLS), "max_position_embeddings": 20, "bos_token_id": SYMBOLS.index(START),
            "eos_token_id": SYMBOLS.index(END), "pad_token_id": SYMBOLS.index(END)}
    if text_alone:
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
    else:
        vision = {**LAYERS, "image_size": 28, "patch_size": 14}
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision,
                                                               projection_dim=LAYERS["projection_dim"]))
    for parameter in model.parameters():   # its own beginnings are so small that all texts are alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(SYMBOLS)}))
    (folder / "merges.txt").write_text("#version: 0.2\nf o\nfo x</w>\n")
    return folder
