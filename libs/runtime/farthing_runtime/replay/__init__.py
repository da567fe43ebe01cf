"""A model server that answers from recordings: for the demo, for tests, and for asking "what if".

It speaks the OpenAI HTTP wire.
A prompt that was not recorded is a clear 404.
"""
