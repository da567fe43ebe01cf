"""Answers that were already paid for: looking up, remembering, what is worth keeping and for how long, flights, adapting."""
