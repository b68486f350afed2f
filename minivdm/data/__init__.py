"""Videos to learn from: the rendered fireworks world, and folders of your own clips."""
