"""The people at the desk: who they are, what they may see and do, and the audit log of what they did."""
