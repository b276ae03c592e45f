"""What is left behind of each message."""
