"""What happens beside the training loop: metrics, console, guards, sample generations."""
