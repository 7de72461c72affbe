"""What is tried in a process of its own beside the cluster: bytes → accepted or refused, or a fault."""
