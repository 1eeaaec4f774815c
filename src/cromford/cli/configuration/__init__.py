"""What a run is told: every key, its kinds and its sources, and what a daemon makes of them."""
