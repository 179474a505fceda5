"""The two ends of a deployment, each a machine that takes bytes and returns bytes: a site node and a server node."""
