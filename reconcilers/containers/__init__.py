"""Containers: one for each component."""
