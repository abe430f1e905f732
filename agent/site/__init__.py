"""A site: its certificate authority, its register of posts, the kit of each post, and the brokers' configuration."""
