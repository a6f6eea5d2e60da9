"""Probe pairs: seeds, partners made from them, and the adapters that convert them to any model's input."""
