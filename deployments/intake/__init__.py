"""What reaches the gateway before a request does: connections, heads and bodies, and how much of each is let in."""
