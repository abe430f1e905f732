"""How a node is put together, part by part. `agent/main.py` puts the parts together."""
