"""Token priors: models of grids of codebook ids. Nothing here knows the benchmark or the tokenizer."""
