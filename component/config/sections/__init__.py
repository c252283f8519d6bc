"""The sections of the config, one file each: every key with its type, default, meaning and limits."""
