"""The process a program runs in: compilation, caches, threads, versions, files."""
