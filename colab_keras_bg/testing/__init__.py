"""Doubles and tools to test with: ours, and those of programs built on us."""
