"""Drawings as SVG: one file per plot, on the axes of `axes.py`."""
