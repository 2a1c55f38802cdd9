"""What is measured: fidelity, diversity, likelihood, speed and memorisation, each with its error."""
