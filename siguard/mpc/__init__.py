"""Protocol coroutines on replicated shares; one file per family of gates."""
