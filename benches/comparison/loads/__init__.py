"""The load generators: one module each."""
