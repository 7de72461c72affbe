"""One HTTP exchange with a cluster: what is asked, what comes back, what is tried again, and the errors in between."""
