"""The servers that are compared: one module each."""
