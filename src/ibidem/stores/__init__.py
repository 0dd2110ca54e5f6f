"""The stores: where results are remembered."""
