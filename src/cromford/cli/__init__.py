"""What a user types: commands, what they are told, and what they show."""
