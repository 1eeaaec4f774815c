"""Backups, replicas and the high-water mark: what a store is put back from, and what judges it."""
