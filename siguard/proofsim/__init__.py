"""The security claim as something that runs.  So far: exact enumeration of single gates on tiny rings."""
