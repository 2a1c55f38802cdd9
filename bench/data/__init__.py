"""Data sets, splits and transforms, torch-free; and the token cache."""
