"""Cooperative closes: what everybody in a scope signs together, to be paid at once."""
