"""The only place where the parts meet; train.py and the scripts stand on it."""
