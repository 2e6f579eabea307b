"""Streams: which data comes when. The table, the plans behind its lines, and what a plan becomes with a data set."""
