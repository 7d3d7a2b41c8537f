"""What tensorspec costs beside other packages: time, memory, growth, threads and the first answer.

Run from the root of the repository: ``python -m benchmarks --help``.
"""
