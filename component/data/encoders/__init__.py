"""From rows to token ids: an encoder for each kind of rows."""
