"""How much to set aside for streams whose length nobody knows yet.

A stream owns its output in bins of tokens, each paid for before its first token. What all running streams of a budget may still cost
is bounded together, so that a thousand of them need little more than their mean. The bound only ever refuses newcomers: money is
kept by what was drawn, whatever the bound says.
"""
