"""What a role remembers: its records, and the values they fold into. Readable for years."""
