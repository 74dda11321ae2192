"""A user's project, as its text tells: which program trains, whether it saves, and what `spotproof init` adds.

In: a folder. Out: a :class:`Program`, evidence that it saves, the lines it lacks, the text of job.yaml and Dockerfile.
Nothing of the project is run or imported. Who may import it: ``launch``, ``cli``.
"""

from spotproof.project.changes import suggest_changes
from spotproof.project.evidence import SourceLook, look_at_source
from spotproof.project.files import build_dockerfile, build_dockerignore, build_job
from spotproof.project.look import Project, look_at_project
from spotproof.project.programs import Option, Program, read_program

__all__ = [
    "Option",
    "Program",
    "Project",
    "SourceLook",
    "build_dockerfile",
    "build_dockerignore",
    "build_job",
    "look_at_project",
    "look_at_source",
    "read_program",
    "suggest_changes",
]
