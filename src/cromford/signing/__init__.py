"""Who must sign what, nonces that sign once, collecting partial signatures. No factory here."""
