"""The output: decisions, settlements, and the response headers that are made from decisions."""
