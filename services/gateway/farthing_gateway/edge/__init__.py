"""What stands between the socket and the handlers of the HTTP edge.

The listener bounds connections, heads and bodies, and stops gracefully.
Refusals are written in OpenAI's words, so that every client library understands them.
"""
