"""Networks that critics and losses look through and that are never trained, and the context that holds them."""
