"""One file a task, plus what they share."""
