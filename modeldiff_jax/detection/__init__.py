"""Verdicts: measure models, rank them against references, and answer the three questions asked of models."""
