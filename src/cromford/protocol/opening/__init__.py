"""Building one factory: from a proposal to a funding transaction, exits first."""
