"""``prices update``, and the file of prices that report and plan read."""

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Json
from spotproof.errors import SpecError
from spotproof.userdir import user_folder

if TYPE_CHECKING:
    from spotproof.plan import Price, Prices

__all__ = ["app", "default_file", "highest_price", "read_prices", "region_named"]

app = typer.Typer(help="What instances cost, from AWS's Price List.", no_args_is_help=True, rich_markup_mode=None)

_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


@app.callback()
def _prices() -> None:
    pass


@app.command()
def update(
    region: Annotated[str | None, typer.Option(help="Default: AWS_REGION, AWS_DEFAULT_REGION, the profile's.")] = None,
    instance_types: Annotated[
        list[str] | None, typer.Option("--instance-type", help="Only this one. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: a file of the region in the user's folder.")] = None,
    as_json: Json = False,
) -> None:
    """Ask AWS what SageMaker's training instances cost, and write it down.

    Needs credentials with pricing:GetProducts; the Price List itself costs nothing. The file is dated and says where
    its prices are from; `report` and `plan` read it without being told.
    """
    import dataclasses

    from spotproof.cli.console import print_json, print_line, print_table
    from spotproof.launch import fetch_products
    from spotproof.plan import parse_products, price_file

    wanted = region or _region_in_use()
    default = default_file(wanted)
    found = parse_products(fetch_products(wanted), region=wanted)
    if not found.usd_per_hour:
        raise SpecError(
            f"The Price List has no training instance in {wanted}.", do="Correct --region: it is as in us-west-2."
        )
    if instance_types:
        lacking = [kind for kind in instance_types if kind not in found.usd_per_hour]
        if lacking:
            raise SpecError(
                f"The Price List has no {', '.join(lacking)} for training in {wanted}.",
                why=f"It has {len(found.usd_per_hour)} types, as {', '.join(sorted(found.usd_per_hour)[:4])}.",
                do="Correct --instance-type, or take another --region.",
            )
        found = dataclasses.replace(found, usd_per_hour={kind: found.usd_per_hour[kind] for kind in instance_types})
    path = out or default
    today = datetime.now(timezone.utc).date()
    _write(path, price_file(found, today=today))
    if as_json:
        print_json(
            {
                "file": str(path),
                "date": today,
                "published": found.published,
                "region": wanted,
                "usd_per_hour": found.usd_per_hour,
            }
        )
        return
    if instance_types:
        rows = [(kind, f"{usd:g}") for kind, usd in sorted(found.usd_per_hour.items())]
        print_table(("instance", "USD/h on demand"), rows, right=("USD/h on demand",))
    print_line(f"{len(found.usd_per_hour)} prices of {wanted}, {today}, are in {path}")


def default_file(region: str) -> Path:
    """Return where the prices of *region* are kept for this user.

    Raises:
        SpecError: *region* is no name of a region, and would lead elsewhere.
    """
    if not region.replace("-", "").isalnum():
        raise SpecError(f"{region!r} is no AWS region.", do="Write it as in us-west-2.")
    return user_folder(os.environ) / "prices" / f"{region}.yaml"


def read_prices(path: Path | None, region: str | None = None) -> "Prices | None":
    """Return the prices in *path*, else those that ``prices update`` wrote for *region*; None if there are none.

    Raises:
        SpecError: The file can't be read, or holds no prices.
    """
    from spotproof.plan import parse_prices

    if path is None:
        wanted = region or region_named()
        if wanted is None or not (default := default_file(wanted)).is_file():
            return None
        path = default
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"--prices {path} can't be read ({reason}).", do="Give the path of a text file.") from error
    return parse_prices(text, str(path))


def region_named() -> str | None:
    """Return the region that the environment names, None if it names none."""
    return next((os.environ[name] for name in _REGIONS if os.environ.get(name)), None)


def highest_price(prices: "Prices | None", instance_type: str) -> "Price | None":
    """Return what an instance costs at most, None where the file does not have it.

    AWS publishes no price of managed spot: where the file has none, it is that on demand, which spot stays below.
    """
    import dataclasses

    if prices is None or not prices.has(instance_type):
        return None
    price = prices.of(instance_type)
    if price.spot_usd_per_hour is None:
        return dataclasses.replace(price, spot_usd_per_hour=price.on_demand_usd_per_hour)
    return price


def _region_in_use() -> str:
    from spotproof.launch import TrainingService

    return region_named() or TrainingService().region


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        raise SpecError(f"--out {path} can't be written ({error.strerror}).", do="Name another file.") from error
