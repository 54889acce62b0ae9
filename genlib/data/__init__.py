"""Data sets: arrays from checked files."""
