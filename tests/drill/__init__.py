"""Crash drills: both roles die at each point of each ceremony, and real processes are killed."""
