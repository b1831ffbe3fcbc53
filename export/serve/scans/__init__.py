"""Scans as they come in: received with limits, kept in a private folder, recognised, unpacked, segmented."""
