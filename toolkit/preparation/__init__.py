"""A source to a store: facts of every case, checks, resolved settings, written arrays."""
