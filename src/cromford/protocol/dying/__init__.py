"""A factory that dies: everybody is told, clients move out, the LSP does what its policy says."""
