"""Hosts Farthing services, all in one process or one in each, without their noticing.

Also what they all stand on: local calls, status codes, settings, the embedded Postgres, and the command line.
"""
