"""The daemons: thin shells around the protocol, and the local API they answer on."""
