"""The demo: one support agent, without ibidem, with it, and in a new process (`python -m ibidem.demo`)."""
