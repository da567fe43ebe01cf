"""Payloads under their organisation's data key: without the key there is nothing to read."""
