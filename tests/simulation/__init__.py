"""Seeded worlds: the real ledger on a real Postgres, two replicas, a hand-turned clock, and faults. A run is its seed."""
