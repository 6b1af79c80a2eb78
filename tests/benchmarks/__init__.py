"""The benchmark suite: every stack as sender and as receiver, in separate processes, over loopback, files to disk.

``python -m tests.benchmarks`` runs it; pytest does not collect it. Nothing in the package imports from here.
"""
