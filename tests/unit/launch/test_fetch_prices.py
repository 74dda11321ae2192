"""The Price List is asked for one region's training instances, all pages of it, at AWS whatever else is configured."""

import pytest
from botocore.stub import Stubber

from spotproof.errors import LaunchError
from spotproof.launch.prices import fetch_products, open_price_list

FILTERS = [
    {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"},
    {"Type": "CONTAINS", "Field": "usagetype", "Value": "Train:ml."},
]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch):
    """boto3's client; what it answers is stubbed."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    return open_price_list()


def test_it_is_aws_that_is_asked(client):
    """The local server's endpoint, which the environment names for SageMaker, has no prices."""
    assert client.meta.endpoint_url == "https://api.pricing.us-east-1.amazonaws.com"


def test_all_pages(client):
    """Filters as the API has them; the pages' products in order."""
    asked = {"ServiceCode": "AmazonSageMaker", "Filters": FILTERS}
    with Stubber(client) as stub:
        stub.add_response("get_products", {"PriceList": ["1", "2"], "NextToken": "t"}, asked)
        stub.add_response("get_products", {"PriceList": ["3"]}, {**asked, "NextToken": "t"})
        assert fetch_products("eu-west-1", client=client) == ["1", "2", "3"]
        stub.assert_no_pending_responses()


def test_no_permission_is_said(client):
    """With what is lacking, and what to do."""
    with Stubber(client) as stub:
        stub.add_client_error("get_products", "AccessDeniedException", "not authorized to perform: pricing:GetProducts")
        with pytest.raises(LaunchError, match=r"did not give prices: .*pricing:GetProducts.*lack the permission"):
            fetch_products("eu-west-1", client=client)
