"""What is built between a spec and its numbers: one file a stage, their order in chain.py."""
