"""What callers hold in their hands: the limiters and their reservations."""
