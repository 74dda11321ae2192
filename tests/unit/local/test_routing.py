"""One endpoint: each request goes to the service that it is meant for."""

import pytest

from spotproof.local.routing import find_region, find_service


def signed(service, region="eu-west-1"):
    credential = f"Credential=key/20260101/{region}/{service}/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"}


PRESIGNED = {"X-Amz-Credential": "key/20260101/eu-west-1/s3/aws4_request", "X-Amz-Signature": "0"}
SIGV4A = {"Authorization": "AWS4-ECDSA-P256-SHA256 Credential=key/20260101/s3/aws4_request, SignedHeaders=host"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "query", "form", "service"),
    [
        ("POST", "/", signed("sagemaker"), {}, {}, "sagemaker"),
        ("POST", "/", signed("logs"), {}, {}, "logs"),
        ("POST", "/", signed("sts"), {}, {}, "sts"),
        ("POST", "/", signed("iam", "us-east-1"), {}, {}, "iam"),
        ("GET", "/", signed("s3"), {}, {}, "s3"),
        ("PUT", "/bucket/key", signed("s3"), {}, {}, "s3"),
        ("PUT", "/bucket/key", signed("s3express"), {}, {}, "s3"),
        ("GET", "/bucket/key", SIGV4A, {}, {}, "s3"),
        ("GET", "/bucket/key", {}, PRESIGNED, {}, "s3"),
        ("GET", "/", {}, PRESIGNED, {}, "s3"),
        ("GET", "/bucket/key", {}, {"AWSAccessKeyId": "key", "Signature": "0", "Expires": "1"}, {}, "s3"),
        ("GET", "/", {"Authorization": "AWS key:signature"}, {}, {}, "s3"),
        ("GET", "/public/key", {}, {}, {}, "s3"),
        ("POST", "/", signed("monitoring"), {}, {}, "monitoring"),
        (
            "POST",
            "/service/GraniteServiceVersion20100801/operation/ListMetrics",
            signed("monitoring"),
            {},
            {},
            "monitoring",
        ),
        ("POST", "/", {"X-Amz-Target": "GraniteServiceVersion20100801.ListMetrics"}, {}, {}, "monitoring"),
        ("POST", "/", {}, {}, {"Action": "ListMetrics", "Version": "2010-08-01"}, "monitoring"),
        ("POST", "/", {**signed("sagemaker"), "X-Amz-Target": "Logs_20140328.GetLogEvents"}, {}, {}, "sagemaker"),
        ("POST", "/", {"X-Amz-Target": "SageMaker.ListTrainingJobs"}, {}, {}, "sagemaker"),
        ("POST", "/", {"X-Amz-Target": "Logs_20140328.GetLogEvents"}, {}, {}, "logs"),
        ("POST", "/", {"X-Amz-Target": "DynamoDB_20120810.GetItem"}, {}, {}, None),
        ("POST", "/", {}, {}, {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15"}, "sts"),
        ("POST", "/", {}, {}, {"Action": "GetRole", "Version": "2010-05-08"}, "iam"),
        ("GET", "/", {}, {"Action": "GetCallerIdentity", "Version": "2011-06-15"}, {}, "sts"),
        ("POST", "/", {}, {}, {}, None),
        ("GET", "/", {}, {}, {}, None),
        ("POST", "/", {"Authorization": "AWS4-HMAC-SHA256 Credential=key/nonsense"}, {}, {}, None),
        ("POST", "/", {"Authorization": "Bearer token"}, {}, {}, None),
    ],
)
def test_the_service(method, path, headers, query, form, service):
    """The scope of the signature decides; without one, what only that service sends; a path is S3's."""
    assert find_service(method, path, headers, query, form) == service


def test_the_region():
    """The region is the one that was signed for."""
    assert find_region(signed("sagemaker"), {}) == "eu-west-1"
    assert find_region({}, PRESIGNED) == "eu-west-1"
    assert find_region(SIGV4A, {}) == "us-east-1"
    assert find_region({}, {}) == "us-east-1"
