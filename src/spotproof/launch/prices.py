"""Ask the AWS Price List what SageMaker's instances cost; :mod:`spotproof.plan.price_list` reads the answer."""

from typing import Any, Final

from spotproof.launch.failures import translated

__all__ = ["fetch_products", "open_price_list"]

_SERVICE: Final = "AmazonSageMaker"
_ENDPOINT_REGION: Final = "us-east-1"
"""The Price List is served from there, for all regions. Source: API reference, "Price List Query API endpoints"."""


def open_price_list() -> Any:
    """Return boto3's client of the Price List: AWS's own, whatever endpoint the environment names for SageMaker."""
    import boto3
    import botocore.config

    options: dict[str, Any] = {"ignore_configured_endpoint_urls": True}  # unknown to the stubs
    config = botocore.config.Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, **options)
    with translated("open the Price List"):
        return boto3.session.Session().client("pricing", region_name=_ENDPOINT_REGION, config=config)


def fetch_products(region: str, *, client: Any = None) -> list[str]:
    """Return the products for training in *region*, each as the JSON text that the Price List gives.

    Raises:
        LaunchError: No credentials, no permission (``pricing:GetProducts``), or no answer.
    """
    client = client or open_price_list()
    with translated("give prices"):
        filters = [
            {"Type": "TERM_MATCH", "Field": "regionCode", "Value": region},
            {"Type": "CONTAINS", "Field": "usagetype", "Value": "Train:ml."},
        ]
        pages = client.get_paginator("get_products").paginate(ServiceCode=_SERVICE, Filters=filters)
        return [text for page in pages for text in page["PriceList"]]
