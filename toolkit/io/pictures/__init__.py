"""Pictures without physical spacing, and masks drawn for them."""
