"""Guard policies, one module each; `siguard.guard.policy` says what a policy owes and lists them."""
