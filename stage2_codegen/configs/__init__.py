"""The flags of stage two, one file a family of variants; torch is not needed to read them."""
