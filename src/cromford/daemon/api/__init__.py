"""What a daemon is asked: the local API, and its methods by subject."""
