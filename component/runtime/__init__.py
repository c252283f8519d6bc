"""The process and the machine: logging, seeds, ranks, facts about the environment."""
