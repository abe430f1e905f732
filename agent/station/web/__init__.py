"""The desk's pages: a Starlette application that `wardpost station` serves from a thread of its own."""
