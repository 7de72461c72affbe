"""What operators see of the application: metrics, traces, a log line for each request, and the id that ties them."""
