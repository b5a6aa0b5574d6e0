"""What loopback servers of storage services have in common.

Invariant: nothing here knows which service it is.
"""
