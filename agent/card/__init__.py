"""From a blank card to a post: what `wardpost flash` and `wardpost bundle` do at a technician's laptop."""
