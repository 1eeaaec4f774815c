"""What a command shows: answers as text, tables and trees, or as one JSON document."""
