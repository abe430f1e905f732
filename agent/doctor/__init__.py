"""`wardpost doctor`: what is wrong with a post now, and what to do about it."""
