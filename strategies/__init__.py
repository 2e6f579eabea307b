"""Strategies: how a learner takes one experience in. One file a method; :mod:`acn_cl.strategies.table` lists them."""
