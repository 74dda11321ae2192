"""Lightning: the callback and the CLI that make a stock training exact. The only room that imports lightning.

In: a Lightning trainer. Out: checkpoints between two batches, exact resumes. Who may import it: users' scripts. Once it
is imported, Lightning's loggers and callbacks take ``s3://`` places without s3fs.
"""

from typing import TYPE_CHECKING, Any

from spotproof.lightning.callback import SpotCheckpoint
from spotproof.storage import serve_s3_urls

if TYPE_CHECKING:
    from spotproof.lightning.cli import SpotCLI

__all__ = ["SpotCLI", "SpotCheckpoint"]

serve_s3_urls()  # before a logger or a callback is made with such a place


def __getattr__(name: str) -> Any:
    if name == "SpotCLI":  # jsonargparse is loaded only where the CLI is used
        from spotproof.lightning.cli import SpotCLI

        return SpotCLI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
