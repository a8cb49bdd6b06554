"""How long work reports its progress; declared in :mod:`flowclf.progress`, where reading data finds it too."""

from flowclf.progress import Progress, SilentProgress, Task

__all__ = ["Progress", "SilentProgress", "Task"]
