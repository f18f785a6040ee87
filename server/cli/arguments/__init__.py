"""What each command takes, apart from what it does: help is instant."""
