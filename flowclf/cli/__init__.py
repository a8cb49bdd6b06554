"""Command line: the only part of flowclf that prints or exits.

Data go to standard output, everything else to standard error.
"""
