"""What a model's inputs are: their roles, sizes, values, and the space they are probed in."""
