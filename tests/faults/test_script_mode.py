"""Script mode: the code comes with the request, as the SageMaker Python SDK sends it with ``entry_point``."""

import io
import json
import os
import sys
import tarfile
import time
import zipfile

import boto3
import pytest
from test_container_process import Container

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's")

PROGRAM = """
import json, os, sys
print("ARGV", json.dumps(sys.argv))
print("MODULE", os.environ["SM_MODULE_NAME"], os.environ["SM_USER_ENTRY_POINT"])
"""


@pytest.fixture
def submit(tmp_path, s3_server):
    """Return a container and a function that makes the request's archive of files and says so to the container."""
    container = Container(tmp_path / "ml")
    s3 = boto3.client("s3", "us-east-1", None, True, None, s3_server.url, s3_server.access_key, s3_server.secret_key)
    bucket = f"b{time.time_ns()}"
    s3.create_bucket(Bucket=bucket)

    def submit(files, program="train.py", **hyperparameters):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for item in files:
                name, content = item if isinstance(item, tuple) else (item.name, b"")
                info = tarfile.TarInfo(name) if isinstance(item, tuple) else item
                info.size, info.mode = len(content), 0o755
                archive.addfile(info, io.BytesIO(content))
        s3.put_object(Bucket=bucket, Key="job/source/sourcedir.tar.gz", Body=packed.getvalue())
        raw = {
            "sagemaker_submit_directory": f"s3://{bucket}/job/source/sourcedir.tar.gz",
            "sagemaker_program": program,
            "sagemaker_region": "us-east-1",
            **hyperparameters,
        }
        container.write_config("hyperparameters.json", {name: json.dumps(value) for name, value in raw.items()})

    container.submit, container.environment = submit, s3_server.environment()
    yield container
    s3.close()


def test_the_submitted_program_runs_with_its_hyperparameters(submit):
    """The archive is unpacked over the image's code; its program runs in place of the image's."""
    submit.write_program("raise SystemExit('the image ran')")
    submit.submit([("train.py", PROGRAM.encode()), ("lib/part.py", b"")], name="abc", lr=0.1, flag=True, l=[1, 2], k=3)

    code, out, err = submit.run("image.py", "--image-argument", "1", "train", **submit.environment)

    assert code == 0, err
    argv = ["train.py", "--flag", "True", "-k", "3", "-l", "[1, 2]", "--lr", "0.1", "--name", "abc"]
    assert f"ARGV {json.dumps(argv)}" in out
    assert "MODULE train train.py" in out
    assert (submit.base / "code/lib/part.py").exists()


def test_a_shell_script_as_the_program(submit):
    """An entry point that is no Python file runs with its arguments, too."""
    submit.submit([("go.sh", b"echo SHELL $*")], "go.sh", epochs=2)

    code, out, err = submit.run(**submit.environment)

    assert code == 0, err
    assert "SHELL --epochs 2" in out


def test_the_endpoint_variable_of_the_toolkit_is_read(submit):
    """S3_ENDPOINT_URL, which the toolkit reads for this download, leads to the archive."""
    submit.submit([("train.py", PROGRAM.encode())])
    environment = dict(submit.environment)
    url = environment.pop("AWS_ENDPOINT_URL_S3")

    code, _, err = submit.run(S3_ENDPOINT_URL=url, **environment)

    assert code == 0, err


def wheel(name, version, text, requires=()):
    """Return a wheel with one module."""
    packed = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {other}\n" for other in requires
    )
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"wheels/{name}-{version}-py3-none-any.whl", packed.getvalue()


def test_requirements_are_installed_beside_the_images_packages(submit):
    """Missing packages and other versions are found first by the program; the image's own stay as they are."""
    import packaging

    program = b"""
import greeting, packaging
print("GREETING", greeting.TEXT, packaging.TEXT, packaging.__file__)
"""
    submit.submit(
        [
            ("train.py", program),
            wheel("greeting", "1.0", "TEXT = 'hello'", ["packaging==0.0.1"]),
            wheel("packaging", "0.0.1", "TEXT = 'other'"),
            ("requirements.txt", b"--no-index\n--find-links wheels\ngreeting\n"),
        ]
    )

    code, out, err = submit.run(**submit.environment)

    assert code == 0, err
    assert f"GREETING hello other {submit.base / 'packages' / 'packaging.py'}" in out
    assert os.path.exists(packaging.__file__)
    with pytest.raises(ModuleNotFoundError):
        __import__("greeting")


def test_requirements_that_are_there_cost_no_installation(submit):
    """What the image has is not installed again, and no index is asked."""
    submit.submit([("train.py", PROGRAM.encode()), ("requirements.txt", b"--no-index\npytest\nnumpy\n")])

    code, _, err = submit.run(**submit.environment)

    assert code == 0, err
    assert not (submit.base / "packages").exists()


def test_a_requirement_that_cannot_be_had_is_the_reason(submit):
    """The failure names the package, and the program does not run."""
    submit.submit([("train.py", PROGRAM.encode()), ("requirements.txt", b"--no-index\nno-such-package\n")])

    code, out, _ = submit.run(**submit.environment)

    assert code == 1
    assert "ARGV" not in out
    assert submit.failure.startswith("InstallRequirementsError:\nExitCode 1")
    assert "no-such-package" in submit.failure


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "files",
    [
        [("../escaped", b"x")],
        [link("out", "../.."), ("out/escaped", b"x")],
        [link("out", "/tmp")],
        [link("pipe", "", tarfile.FIFOTYPE)],
    ],
    ids=["dots", "through a link", "absolute link", "pipe"],
)
def test_an_archive_that_leads_outside_is_refused(submit, files):
    """Nothing is written outside the code directory, and the failure says why."""
    submit.submit([*files, ("train.py", PROGRAM.encode())])

    code, out, _ = submit.run(**submit.environment)

    assert code == 2
    assert "ARGV" not in out
    assert "can't be unpacked" in submit.failure
    assert not list(submit.base.parent.rglob("escaped"))


def test_an_archive_that_is_gone_is_named(submit):
    """A deleted archive is told as such, with its URL."""
    submit.submit([("train.py", b"")])
    url = "s3://no-such-bucket-at-all/source.tar.gz"
    submit.write_config("hyperparameters.json", {"sagemaker_submit_directory": url, "sagemaker_program": "train.py"})

    code, _, _ = submit.run(**submit.environment)

    assert code == 2
    assert submit.failure.startswith(f"SpecError: The source archive {url} does not exist.")
