"""Hundreds of sidecars and a store of many nodes, in one process and in virtual time.

A sidecar is the real `AsyncLimiter` with its real leases, denial memory, coalescing, routing and circuit
breakers. Only the transport below it is simulated, and a node behind it is the engine's `SimulatedBuckets`.
"""
