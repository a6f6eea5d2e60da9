"""Interfaces of other libraries, implemented by our kernels."""
