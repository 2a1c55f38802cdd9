"""Weights and public data sets: pinned, fetched, converted, verified."""
