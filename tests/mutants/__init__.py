"""Rules are changed, one at a time, and the tests that should notice are run."""
