"""Backbones: any block with any wiring, and depth as an axis of every one of them."""
