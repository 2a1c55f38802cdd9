"""Where and when runs are worked on: this machine or SLURM."""
