"""A discrete-event simulation of the serving DAG: replicas, batches, shared cores, routing and autoscaling."""
