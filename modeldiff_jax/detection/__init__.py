"""Verdicts: `compare`, `screen` and `lineage` measure models, and rank them among references."""
