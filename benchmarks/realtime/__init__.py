"""Speech over a socket: how soon it is answered, and what a cut costs."""
