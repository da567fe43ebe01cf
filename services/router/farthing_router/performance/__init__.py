"""What came of routes: every decision is written down, performance is summed up by the hour, reports read the sums.

Nothing here holds up a request.
"""
