"""What the service is for: adding, finding, reading, changing and deleting memories, and the events of slow adds."""
