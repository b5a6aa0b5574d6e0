"""Lies here so that pytest puts this folder on the path.

Each folder of tests may then `from waiting import until`.
"""
