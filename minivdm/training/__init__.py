"""The training loop, the tasks it trains and the checkpoints it leaves."""
