"""One file a format that a document is written in."""
