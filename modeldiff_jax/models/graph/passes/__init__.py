"""Passes that rewrite a graph before it runs."""
