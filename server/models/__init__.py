"""The model gateway: the one way from an agent to a model, and names by a small model."""
