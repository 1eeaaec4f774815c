"""What the tree looks like: terms, shape, outputs, transactions, branches. Speaks to nobody."""
