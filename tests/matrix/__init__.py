"""The cheating matrix: who cheats whom, how, at which feerates, and who ends with what."""
