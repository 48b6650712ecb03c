"""How bytes get from one party to another.  Knows nothing of MPC."""
