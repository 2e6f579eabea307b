"""Blocks: one layer's function ``f(x)``, one file each. The table is ``acn_cl.backbones.presets.BLOCKS``."""
