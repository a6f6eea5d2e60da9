"""Catalogues: measurements of many models under one probe set."""
