"""Formats of documents: one file per format."""
