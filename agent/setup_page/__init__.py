"""The page that a technician at the post sees while he installs it: on the local link only, for a bounded time."""
