"""Everything that both trainings share: processes, precision, updates, the clock, and stopping."""
