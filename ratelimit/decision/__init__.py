"""What comes out of a check: the decision, and the headers made from it."""
