"""The advance of a leaf: its state is replaced, so that L-stock becomes channel capacity."""
