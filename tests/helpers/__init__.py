"""Helpers that tests of several folders share: one file per kind. Helpers of one folder are beside its tests."""
