"""The version: the only place that has it. The distribution's version is read from here, too."""

__version__ = "0.1.0"
