"""Live channels: BOLT 2 with a peer, payments, and what both roles share of them."""
