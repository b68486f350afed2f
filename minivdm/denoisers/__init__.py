"""The networks that remove noise."""
