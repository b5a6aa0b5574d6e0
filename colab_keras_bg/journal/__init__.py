"""The records of a run: what was said, measured and tried."""
