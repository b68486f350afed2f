"""What a preset takes before it runs: parameters, computing, memory part by part, time, and what to change."""
