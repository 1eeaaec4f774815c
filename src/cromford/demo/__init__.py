"""A whole world on one machine: a node, an LSP and clients build a factory."""
