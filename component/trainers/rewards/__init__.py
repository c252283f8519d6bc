"""Rewards of sampled completions: named ones, the user's own, and the checks around them; none needs torch."""
