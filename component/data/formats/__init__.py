"""Data formats: one file each, turning the records of a file into canonical rows."""
