"""Probe pairs: seeds, partners made from them, and the adapters that put them into any model's input."""
