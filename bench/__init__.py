"""Benchmarks: one file for each question. They import the product and nothing of the tests; tests may import them."""
