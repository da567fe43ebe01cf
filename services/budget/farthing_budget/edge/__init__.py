"""The RPCs, grouped by noun: messages in, the domain's call, messages out. `servicer.py` puts the groups together. They decide nothing."""
