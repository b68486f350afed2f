"""minivdm: video diffusion from nothing, a course of ten notebooks and the package they import."""

__version__ = "0.1.0"
