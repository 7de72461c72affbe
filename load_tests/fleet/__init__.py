"""The fleet: arrivals, clients, scenarios, and the open loop that drives them."""
