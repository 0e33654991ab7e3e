"""Decides without I/O: the bucket, the layout of the store, the calls and replies of the scripts."""
