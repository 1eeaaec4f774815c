"""Who speaks next, and what if they don't: the two roles as pure functions over a journal."""
