"""What a run directory tells, to people and to programs."""
