"""The measurements: one module for each kind. Each has a plan, which runs round by round and fills tables."""
