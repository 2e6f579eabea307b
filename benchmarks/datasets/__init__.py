"""Data sets: what they are (table), where they lie (search), how they are read (pickles, idx, parquet, folder)."""
