"""What all tests of daemons share."""

from tests.quick_keys import quick_keys, whole_cost

__all__ = ["quick_keys", "whole_cost"]
