"""What travels between an LSP and a client: typed messages and their bounded bytes."""
