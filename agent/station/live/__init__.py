"""Live view at headquarters: who watches which post, for how long. Signed commands out, answers in; kept in memory."""
