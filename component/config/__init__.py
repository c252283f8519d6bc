"""The configuration: its keys, how it is read, and the problems it can have."""
