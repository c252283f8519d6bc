"""From files to token ids with supervised spans."""
