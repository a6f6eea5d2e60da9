"""Benchmarks: one file for each question. They import the product and no tests; tests may import them."""
