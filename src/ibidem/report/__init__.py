"""What a guard tells: events, statistics, tables."""
