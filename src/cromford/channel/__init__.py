"""A Lightning channel as a value: commitments, updates, penalties. Its funding may lie anywhere."""
