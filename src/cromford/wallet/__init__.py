"""A BIP 86 wallet as a value: coins found in blocks, reserved, selected. No key is here."""
