"""The optimizer: prompts, made shorter without saying less.

It counts tokens exactly, cleans prompts up without loss, and drops the oldest turns where a conversation does not fit.
It keeps no state and calls nobody.
"""
