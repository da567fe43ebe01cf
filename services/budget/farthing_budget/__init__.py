"""Keeps money and tokens within their limits and counts what was spent.

Reservations are all levels or none, never pass a limit, and every one of them ends exactly once.
Concurrent callers share transactions; several replicas on one Postgres stay exact.
"""
