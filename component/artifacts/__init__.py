"""What a run leaves behind: manifest, metrics, plots, checkpoints."""
