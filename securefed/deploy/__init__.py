"""Setting up and running a federation on an engine: certificates, policies of the sites, processes, jobs.

Nothing here imports an engine; its own commands are called. What a deployment writes lies under one folder.
"""
