"""Evidence: what the node writes down about itself so that others can check it. See "Evidence" in agent/DESIGN.md."""
