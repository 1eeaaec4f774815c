"""A factory of eight that dies with the default policy: moved, closed, swept, to the satoshi."""
