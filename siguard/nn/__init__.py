"""Dense ReLU networks: plaintext containers, and inference on shares."""
