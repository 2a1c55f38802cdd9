"""The paper's published numbers (published/*.csv), shipped with the package, and reference runs."""
