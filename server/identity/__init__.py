"""API keys and principals."""
