"""What tests of several folders share: one file per kind. What one folder alone needs stays beside its tests."""
