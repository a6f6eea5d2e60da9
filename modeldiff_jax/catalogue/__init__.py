"""Many models under one probe set."""
