"""The ports for real: Bitcoin Core, SQLite, TCP. Each adapter maps the world's errors to ours."""
