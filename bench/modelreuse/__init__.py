"""The ModelReuse benchmark (Li et al., ISSTA 2021), rebuilt so that it runs anywhere: a zoo of models whose descent is
known, and how well each method detects it. `python -m bench.modelreuse --help`."""
