"""What a factory costs, before it exists: arithmetic on a tree that nobody builds."""
