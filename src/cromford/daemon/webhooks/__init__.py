"""Events posted to addresses that the operator names: signed, and again until they are taken."""
