"""One call that composes all others: mask, look up, shape, plan, reserve, generate, settle, remember, unmask.

The pipeline is plain Python over small ports; what a policy says decides every turn.
Whatever a request cost is settled, and every request leaves with an itemised receipt.
"""
