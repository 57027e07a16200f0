"""Where the bytes of pictures come from, and what pixels they mean."""
