"""Everything about a run on one HTML page: sections, charts, and the verb."""
