"""Releases of the agent: signed bundles, installed beside the running one, switched, confirmed or rolled back."""
