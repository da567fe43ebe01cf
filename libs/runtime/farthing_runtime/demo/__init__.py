"""The demonstration: a suite, a replay server and a workload in one process, and a table of what was saved.

The support desk that ships here is made up, questions and answers alike.
Other recordings come from a folder.
"""
