"""What `python -m bench.speed` times."""
