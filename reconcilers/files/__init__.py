"""Lays down the files that were pushed, below each service's own folder and nowhere else."""
