"""Segmentation metrics per case, their aggregation and their significance."""
