"""What must be published now: pure functions of what is finished and what the chain shows."""
