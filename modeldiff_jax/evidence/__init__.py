"""Evidence that two models are related: DDV similarity, and several representations scored against references.

A score is higher the more related. A new representation is a function in `representations.py` and its entry in
`REPRESENTATIONS`.
"""
