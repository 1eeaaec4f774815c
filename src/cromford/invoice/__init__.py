"""BOLT 11 invoices: what a payee asks for, as a value, as text and as a QR code."""
