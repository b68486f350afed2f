"""The course machine: exercises whose checks teach, progress, and the build of the notebooks."""
