"""Lamella: from whole-slide images and slide labels to predictions, heatmaps and honest statistics."""

__version__ = "0.1.0"
