"""The fleet: arrivals, clients, scenarios, and the load generator that sends their requests."""
