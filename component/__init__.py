"""Lampyris: config-file-driven fine-tuning of language models."""
