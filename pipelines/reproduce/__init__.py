"""Tables of papers, made again: what was published, and what the same trainings give here."""
