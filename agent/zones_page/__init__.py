"""`wardpost zones`: draws zones and masks on the camera's picture in a browser, and writes them into the TOML."""
