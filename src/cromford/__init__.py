"""SuperScalar channel factories for Bitcoin: many users safely share one UTXO."""

__version__ = "0.1.0"
