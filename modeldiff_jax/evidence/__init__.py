"""How related models behave: the paper's DDV similarity, and several views held against references.

A score is higher the more related. A new view is a function in `views.py` and its line in `VIEWS`.
"""
