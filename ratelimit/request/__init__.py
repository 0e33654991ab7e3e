"""What goes in: checks and usage records, and how their fields are validated."""
