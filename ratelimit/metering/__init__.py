"""Usage records, and what operators assign to keys at run time."""
