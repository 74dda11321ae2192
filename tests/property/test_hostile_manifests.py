"""Whoever can write to the folder can write a manifest that matches its checksum; what it says is not believed."""

import contextlib
import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spotproof import CheckpointDamaged, ResumeMismatch
from spotproof.checkpoint import Checkpointer, find_differences, read_manifest, verify
from spotproof.checkpoint.manifest import content_hash, manifest_key
from spotproof.checkpoint.pack import pack_file
from spotproof.checkpoint.restore import read_state
from spotproof.storage import LocalStorage

STEP = 10
HASH = "0123456789abcdef" * 2


class Values:
    def __init__(self):
        self.state = {"w": torch.arange(6.0).view(2, 3), "n": torch.arange(4), "step": STEP, "deque": (1, 2)}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    checkpointer = Checkpointer(folder)
    checkpointer.register("values", Values())
    checkpointer.save(STEP, wait=True)
    return folder


@pytest.fixture(scope="module")
def body(folder):
    body = json.loads((folder / manifest_key(STEP)).read_bytes())
    del body["digest"]
    return body


def sealed(body):
    """Return the file of a manifest that says *body*, with the digest it should have."""
    digest = content_hash(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps({**body, "digest": digest}).encode()


def read_as_hostile(folder, data, key=None):
    """Read what *data* says in every way there is; return what was restored, or None if it was refused."""
    key = key or manifest_key(STEP)
    path = folder / key
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    storage = LocalStorage(folder)
    try:
        manifest = read_manifest(storage, key)
        for action in (
            lambda: verify(storage, manifest),
            lambda: list(find_differences(manifest, storage, manifest, storage)),
        ):
            with contextlib.suppress(CheckpointDamaged):
                action()
        return read_state(storage, manifest).decoded()
    except (CheckpointDamaged, ResumeMismatch):
        return None
    finally:
        path.unlink() if kept is None else path.write_bytes(kept)


WORDS = [
    *("", "float32", "float64", "quint8", "bits8", "complex32", "uint4", "Tensor", "load", "__name__", "nn", HASH),
    *("packs/../../../etc/passwd", "/etc/passwd", f"packs/{HASH}.state", f"packs/{HASH}.safetensors"),
    *(f"packs/{HASH}.state\n", f"packs/{HASH}.state/../x", "2026-01-01", "\ud800", "\u0663" * 10),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**70),
    st.sampled_from([0, -1, 1, 2**31, 2**63 - 1, 2**63, 10**30, 1e308, -0.0]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(WORDS),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner))


def places(value, path=()):
    """Return the path of every part of a JSON value."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found += places(item, (*path, key))
    return found


def changed(body, path, action, value):
    """Return a copy of *body* in which the part at *path* was replaced, removed or doubled."""
    body = json.loads(json.dumps(body))
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    if action == "replace":
        parent[path[-1]] = value
    elif action == "remove":
        del parent[path[-1]]
    elif isinstance(parent, list):
        parent.insert(path[-1], parent[path[-1]])
    else:
        parent[f"{path[-1]}2"] = parent[path[-1]]
    return body


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_field_may_say_anything(folder, body, data):
    """Refused as damaged or as another's; or read, and then each tensor is one that was saved."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(body)))
        action = data.draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        body = changed(body, path, action, data.draw(VALUES))

    trees = read_as_hostile(folder, sealed(body))

    if trees is not None:
        saved = {b"", *(bytes_of(tensor) for tensor in Values().state.values() if isinstance(tensor, torch.Tensor))}
        assert {bytes_of(trees["values"][name]) for name in ("w", "n")} <= saved


def bytes_of(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def field(number, value):
    """Return what makes the first tensor say *value* for name, dtype, shape, hash or pack."""
    return lambda body: body["ranks"][0]["tensors"][0].__setitem__(number, value)


HOSTILE = {
    "a path that climbs out": lambda body: body["ranks"][0]["state"].update(file="packs/../../secret.state"),
    "an absolute path": lambda body: body["ranks"][0]["packs"][0].update(file="/etc/passwd"),
    "a pack for the state": lambda body: body["ranks"][0].update(state=body["ranks"][0]["packs"][0]),
    "a huge file": lambda body: body["ranks"][0]["state"].update(bytes=2**62),
    "no ranks": lambda body: body.update(ranks=[]),
    "a huge shape": field(2, [2**40]),
    "a shape that overflows": field(2, [0, 2**62, 2**62]),
    "a thousand dimensions": field(2, [1] * 1000),
    "a negative size": field(2, [-1]),
    "no bytes for a shape": field(4, None),
    "a pack from the end": field(4, -1),
    "a pack that is not listed": field(4, 1),
    "a function for a type": field(1, "load"),
    "an unknown type": field(1, "float2"),
    "another type": field(1, "float64"),
    "a type without numbers": field(1, "quint4x2"),
    "fewer tensors": lambda body: body["ranks"][0]["tensors"].pop(),
    "a day without zone": lambda body: body.update(created_at="2026-01-01T00:00:00"),
    "a step of a thousand digits": lambda body: body.update(step=10**1000),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_known_tricks_are_refused(folder, body, change):
    """Each by the right error, with nothing read from elsewhere and no memory taken."""
    body = json.loads(json.dumps(body))
    change(body)
    assert read_as_hostile(folder, sealed(body)) is None


def test_deep_nesting_is_damage(folder, body):
    """Deeper than the parser goes, in the manifest at all and within a field of it."""
    field = b',"meta2":' + b"[" * 10**5 + b"]" * 10**5 + b"}"
    for data in (b"[" * 10**6, b'{"digest":' * 10**5, sealed(body)[:-1] + field):
        assert read_as_hostile(folder, data) is None


def test_more_than_memory_is_refused(folder, body, monkeypatch):
    """The same tensor under many names takes its memory as often as it is named."""
    body = json.loads(json.dumps(body))
    body["ranks"][0]["tensors"] *= 10
    assert read_as_hostile(folder, sealed(body)) is not None
    monkeypatch.setattr("os.sysconf", lambda name: 20)
    path = folder / manifest_key(STEP)
    kept = path.read_bytes()
    path.write_bytes(sealed(body))
    try:
        with pytest.raises(ResumeMismatch, match="Resume on a machine with as much memory"):
            read_state(LocalStorage(folder), read_manifest(LocalStorage(folder), manifest_key(STEP)))
    finally:
        path.write_bytes(kept)


TAGS = ["$tensor", "$ndarray", "$deque", "$torch", "$dict", "$npscalar", "$dtype", "$size", "$default", "x"]
TAGGED = st.recursive(SCALARS, lambda inner: st.dictionaries(st.sampled_from(TAGS), inner, max_size=1))


@settings(max_examples=120, deadline=None)
@given(tree=VALUES | TAGGED)
def test_any_state_may_say_anything(folder, body, tree):
    """A state whose name is right, with anything in it: refused as damaged, as another's, or read."""
    state = json.dumps(tree).encode()
    key = f"packs/{content_hash(state)}.state"
    (folder / key).write_bytes(state)
    body = json.loads(json.dumps(body))
    body["ranks"][0]["state"] = {"file": key, "bytes": len(state)}
    read_as_hostile(folder, sealed(body))
    (folder / key).unlink()


NONSENSE = [b"{}", b"[]", b"7", b"[" * 10**5, b"{", b'{"__metadata__":{}}', b'{"__metadata__":{},"w":{}}']


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_a_pack_that_vouches_for_nonsense(folder, body, text):
    """Its name is the hash of its header, but the header is none."""
    body = json.loads(json.dumps(body))
    header = len(text).to_bytes(8, "little") + text
    pack = pack_file(header, 0, 0)
    (folder / pack.key).write_bytes(header)
    body["ranks"][0]["packs"] = [{"file": pack.key, "bytes": pack.size_bytes}]
    assert read_as_hostile(folder, sealed(body)) is None
    (folder / pack.key).unlink()


@pytest.mark.parametrize("offsets", [[24, 0], [0, 2**60], [-24, 0], [0.0, 24.0], ["0", "24"], [0], [0, 24, 24], None])
def test_a_pack_with_absurd_offsets(folder, body, offsets):
    """They would lead out of the file, or nowhere."""
    (tensor,) = [tensor for tensor in body["ranks"][0]["tensors"] if tensor[2] == [2, 3]]
    entries = {"__metadata__": {"w": tensor[3]}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": offsets}}
    text = json.dumps(entries).encode()
    body = json.loads(json.dumps(body))
    header = len(text).to_bytes(8, "little") + text
    pack = pack_file(header, 24, 0)
    (folder / pack.key).write_bytes(header + torch.arange(6.0).numpy().tobytes())
    body["ranks"][0].update(packs=[{"file": pack.key, "bytes": pack.size_bytes}], tensors=[[*tensor[:4], 0]] * 2)
    assert read_as_hostile(folder, sealed(body)) is None
    (folder / pack.key).unlink()


def test_links_are_read_but_never_written_through(folder, body, tmp_path):
    """A pack that is a link to elsewhere counts by its content; a save replaces the link and not what it leads to."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    manifest = read_manifest(LocalStorage(copy), manifest_key(STEP))
    outside = tmp_path / "outside"
    path = copy / manifest.key
    path.rename(outside)
    path.symlink_to(outside)
    before = outside.read_bytes()
    checkpointer = Checkpointer(copy)
    checkpointer.register("values", Values())
    assert checkpointer.restore() == STEP
    checkpointer.save(STEP, wait=True, meta={"again": True})
    assert outside.read_bytes() == before
    assert not path.is_symlink()
