"""Three ways to need fewer calls to the store: coalescing, denial memory and leases."""
