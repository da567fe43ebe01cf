"""Texts to vectors and token states: models behind one port, batched in a bounded executor."""
