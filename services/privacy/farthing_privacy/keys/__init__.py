"""Data keys of organisations: made once, wrapped under a master key, rotated, lent to peers, erased."""
