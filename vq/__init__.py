"""Tokenizers: images to grids of codebook ids and back. Nothing here knows the benchmark or the priors."""
