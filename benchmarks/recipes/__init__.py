"""Named experiments, one YAML file each; the ``about`` of a file is its result card."""
