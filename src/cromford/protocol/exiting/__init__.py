"""Bringing a channel on chain and taking what is ours there, alone or against a cheater."""
