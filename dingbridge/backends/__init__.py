"""The answer side: one module a server that can be asked."""
