"""SIGuard itself: policies that protect shared logits before anything is revealed."""
