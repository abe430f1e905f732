"""Posts as headquarters sees them: how each one is, why it is dark, what it costs to keep, who must go where."""
