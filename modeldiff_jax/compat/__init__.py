"""Other libraries' names over our kernels."""
