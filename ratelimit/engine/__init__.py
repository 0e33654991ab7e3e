"""Decisions without I/O: the bucket, the layout of the store, and the calls and replies of the scripts."""
