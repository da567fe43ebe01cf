"""Privacy: what must not be seen is masked; what may be known of many is answered with noise.

Masking is reversible and keeps nothing. Private statistics are paid from an organisation's durable account of ε.
"""
