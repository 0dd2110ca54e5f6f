"""The demo: one support agent, without ibidem and with it (`python -m ibidem.demo`)."""
