"""Usage records, and the assignments of operators at run time."""
