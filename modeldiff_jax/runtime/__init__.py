"""The process a program runs in: compilation, caches, threads, forks, versions, and files read and written."""
