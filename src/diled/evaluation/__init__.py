"""Measuring models: bounds, gaps, distances between sets of images, texts and proteins. Never sees training."""
