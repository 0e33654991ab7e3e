"""What callers use: the limiters and their reservations."""
