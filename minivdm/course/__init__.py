"""The course machine: exercises whose checks teach, progress, and the build of the notebooks."""

from minivdm.course.display import ExerciseNotDone, Verdict
from minivdm.course.exercise import Case, Exercise, Mistake, check, hint
from minivdm.course.progress import progress_widget

__all__ = ["Case", "Exercise", "ExerciseNotDone", "Mistake", "Verdict", "check", "hint", "progress_widget"]
