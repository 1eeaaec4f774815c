"""What must be published now: pure functions of what is held and what the chain shows."""
