"""Which extra of Spotproof brings a module that is not installed. Pure."""

from typing import Final

from spotproof.errors import SpotError

__all__ = ["missing_extra"]

_EXTRA_OF: Final = {
    "moto": "local",
    "werkzeug": "local",
    "torch": "train",
    "lightning": "train",
    "torchmetrics": "train",
    "jsonargparse": "train",
    "transformers": "huggingface",
    "accelerate": "huggingface",
    "plotly": "html",
    "matplotlib": "image",
}
"""By what is imported. Those who need one thing, and can say what for, say so themselves; this is for the others."""


def missing_extra(error: ModuleNotFoundError) -> SpotError | None:
    """Return the error to show in the place of *error*; None if no extra has the module, which is then our mistake."""
    module = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(module)
    if extra is None:
        return None
    return SpotError(
        f"This command needs {module}, which is not installed.",
        why=f"Spotproof without extras is light; {module} belongs to `{extra}`.",
        do=f"Run pip install 'spotproof[{extra}]'.",
    )
