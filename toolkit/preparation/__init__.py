"""Preparation of a source as a store: facts of every case, checks, resolved settings, written arrays."""
