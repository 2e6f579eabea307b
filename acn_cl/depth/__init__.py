"""Depth as an axis: which layers a network uses, how gradients reach them, and how they drift.

``effective`` is numpy only; the other modules need torch.
"""
