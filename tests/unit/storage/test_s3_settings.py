"""Where keys, region and endpoint of S3 come from."""

import pytest

from spotproof import SpecError
from spotproof.storage._s3_client import open_store


@pytest.fixture
def home(tmp_path):
    """A home with the shared AWS files."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = DEFAULTKEY\naws_secret_access_key = d%secret\n"
        "[work]\naws_access_key_id = WORKKEY\naws_secret_access_key = w\naws_session_token = wt\n"
    )
    (tmp_path / ".aws/config").write_text(
        "[default]\nregion = eu-central-1\n"
        "[profile work]\nregion = eu-west-1\nendpoint_url = https://s3.work.example\n"
        "[profile sso]\nsso_session = x\n"
    )
    return tmp_path


def settings(environment, home):
    """Return key id, token, region and endpoint that the client would use."""
    store = open_store("bucket", environment, home=home)
    given = store.credential_provider() if store.credential_provider else {}
    return given.get("access_key_id"), given.get("token"), store.config["region"], store.config.get("endpoint")


def test_the_environment_beats_the_profile(home):
    """Keys of the environment are taken whole: no token of a profile is mixed in; the region is still the profile's."""
    keys = {"AWS_ACCESS_KEY_ID": "ENVKEY", "AWS_SECRET_ACCESS_KEY": "s"}
    assert settings(keys, home) == ("ENVKEY", None, "eu-central-1", None)
    assert settings({**keys, "AWS_PROFILE": "work", "AWS_REGION": "us-west-2"}, home) == (
        "ENVKEY",
        None,
        "us-west-2",
        "https://s3.work.example",
    )
    named = {**keys, "AWS_ENDPOINT_URL": "https://all.example", "AWS_DEFAULT_REGION": "us-west-1"}
    assert settings(named, home)[2:] == ("us-west-1", "https://all.example")
    assert settings({**named, "AWS_ENDPOINT_URL_S3": "https://s3.example"}, home)[3] == "https://s3.example"


def test_a_profile_gives_keys(home, tmp_path):
    """The default one without being asked for, another by AWS_PROFILE, or from files elsewhere."""
    assert settings({}, home) == ("DEFAULTKEY", None, "eu-central-1", None)
    assert settings({"AWS_PROFILE": "work"}, home) == ("WORKKEY", "wt", "eu-west-1", "https://s3.work.example")
    (tmp_path / "elsewhere").write_text("[default]\naws_access_key_id = OTHER\naws_secret_access_key = o\n")
    assert settings({"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "elsewhere")}, home)[0] == "OTHER"


def test_services_are_asked_only_without_keys(home, tmp_path):
    """In a container with a role and no files, obstore looks for the credentials itself."""
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"}
    assert open_store("bucket", environment, home=tmp_path / "empty").credential_provider is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_PROFILE": "sso"}, "aws configure export-credentials"),
        ({"AWS_PROFILE": "nobody"}, "no AWS profile 'nobody'"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_EC2_METADATA_DISABLED": "true"}, "no AWS credentials"),
    ],
)
def test_without_keys_it_is_said_why(home, environment, words):
    """A profile that signs in, one that is not there, no credentials at all: an error before anything is tried."""
    with pytest.raises(SpecError, match=words):
        open_store("bucket", environment, home=home)
