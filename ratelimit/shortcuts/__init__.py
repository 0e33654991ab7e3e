"""What saves calls to the store: coalescing, denial memory, leases."""
