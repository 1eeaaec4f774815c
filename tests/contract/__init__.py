"""The API against its own documents: `make contract`."""
