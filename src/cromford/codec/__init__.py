"""Bytes in, values out: bounded reading and the BOLT 1 encodings. Knows no Bitcoin."""
