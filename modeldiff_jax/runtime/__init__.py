"""The process that programs run in: compilation, caches, threads, forks, versions, and files read and written."""
