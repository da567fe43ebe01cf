"""The HTTP edge: the OpenAI API in front of the orchestrator, and the keys that open it.

A client changes its base_url and nothing else.
What a request cost and saved comes back in headers, and in the body for those who ask.
"""
