"""minivdm: video diffusion from nothing, a course of nine notebooks and the package they import."""

__version__ = "0.1.0"
