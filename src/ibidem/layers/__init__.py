"""The layers: one step each between a call and its tool."""
