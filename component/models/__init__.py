"""Loading of tokenizers and models, with one result whichever loader did it."""
