"""What a daemon shows: its state as plain data, computed when asked, never stored."""
