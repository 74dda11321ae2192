"""What the AWS Price List API answers for SageMaker, in the form that its guide shows."""

import json
from typing import Any

__all__ = ["LIST", "product"]


def product(
    usage: str,
    usd: str = "1.4080000000",
    *,
    unit: str = "Hrs",
    region: str = "us-west-2",
    published: str = "2026-11-18",
) -> str:
    """One entry of GetProducts' PriceList, in the form that the AWS Price List API guide shows."""
    dimension = {
        "unit": unit,
        "endRange": "Inf",
        "description": f"${usd} per {usage}",
        "appliesTo": [],
        "rateCode": "ABC.JRTCKXETXF.6YS6EN2CT7",
        "beginRange": "0",
        "pricePerUnit": {"USD": usd},
    }
    entry: dict[str, Any] = {
        "product": {
            "productFamily": "ML Instance",
            "attributes": {
                "regionCode": region,
                "servicecode": "AmazonSageMaker",
                "usagetype": usage,
                "operation": "RunInstance",
                "location": "US West (Oregon)",
            },
            "sku": "ABC",
        },
        "serviceCode": "AmazonSageMaker",
        "terms": {
            "OnDemand": {
                "ABC.JRTCKXETXF": {
                    "priceDimensions": {"ABC.JRTCKXETXF.6YS6EN2CT7": dimension},
                    "sku": "ABC",
                    "effectiveDate": "2026-11-01T00:00:00Z",
                    "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                }
            }
        },
        "version": "20261118000000",
        "publicationDate": f"{published}T00:00:00Z",
    }
    return json.dumps(entry)


LIST = [
    product("USW2-Train:ml.g5.xlarge"),
    product("USW2-Train:ml.p4d.24xlarge", "37.688", published="2026-11-20"),
    product("USW2-Host:ml.g5.xlarge", "1.5"),
    product("USW2-Train:ml.g5.xlarge-WarmPool", "0.1"),
    product("USW2-TrainPlan:ml.g5.xlarge", "0.2"),
    product("USE1-Train:ml.g5.xlarge", "1.3", region="us-east-1"),
    product("USW2-Train:ml.old.large", "0"),
    product("USW2-Train:ml.c5.large", "5", unit="Quantity"),
]
