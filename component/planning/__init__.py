"""Memory and time of a run from its config, without loading weights."""
