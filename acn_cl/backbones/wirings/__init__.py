"""Wirings: what each layer reads, one file each. The table is ``acn_cl.backbones.presets.WIRINGS``."""
