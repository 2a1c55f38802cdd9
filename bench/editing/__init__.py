"""Edits of images through a prior's grid of tokens."""
