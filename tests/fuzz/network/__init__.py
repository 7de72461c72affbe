"""What is tried over HTTP, from 127.0.0.1 against a cluster on loopback: each target sends for a while and judges."""
