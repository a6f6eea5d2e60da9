"""Finds the roles, sizes and values of a model's inputs, and the space they are probed in."""
