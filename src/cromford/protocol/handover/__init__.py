"""Key handover: a client that moved out lets its LSP close the factory without it."""
