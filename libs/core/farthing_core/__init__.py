"""Values that everything else is written in: money, time, ids, scopes, errors.

Nothing here depends on anything but the standard library.
Nothing here does I/O.
"""
