"""The input: checks, usage records, and the validation of their fields."""
