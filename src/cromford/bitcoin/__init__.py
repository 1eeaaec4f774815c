"""Transactions, scripts and taproot as frozen values and their bytes. Knows no factory."""
