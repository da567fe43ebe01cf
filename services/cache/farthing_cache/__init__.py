"""Remembers answers and gives them again where that is safe.

Exact hits are the same request; semantic hits mean the same, inside a partition that nothing crosses.
A store that is out of reach makes misses, never errors.
"""
