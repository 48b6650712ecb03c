"""A deployment on real machines: who takes part, with which keys, at which addresses.

keys.py     the secret key file of one party; public keys as text
schema.py   what deployment.toml may hold
file.py     `DeploymentFile`: deployment.toml read, checked, written, and compared between hosts by digest
logs.py     one JSON object a line, never in the way of the protocol; redact.py: no secret in it
"""
