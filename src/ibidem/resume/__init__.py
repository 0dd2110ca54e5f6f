"""Tasks of graphs that a person was asked in, and that are run again when she has answered."""
