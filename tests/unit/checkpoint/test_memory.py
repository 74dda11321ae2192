"""Buffers that are cheap to touch, and copies on whichever cores are free."""

import ctypes
import itertools
import os
import resource
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from spotproof.checkpoint import copying, memory
from spotproof.checkpoint.copying import Copier
from spotproof.checkpoint.memory import empty, staging_buffer

linux = pytest.mark.skipif(sys.platform != "linux", reason="the advice is Linux's")
MIB = 2**20


def mapping_of(tensor):
    """Return what the kernel says of the memory that *tensor* lies in: {name: value}."""
    found = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, value = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            first, last = (int(part, 16) for part in name.split("-"))
            is_it = first <= tensor.data_ptr() + tensor.numel() * tensor.element_size() // 2 < last
        elif is_it:
            found[name.rstrip(":")] = value.strip()
    return found


@linux
def test_a_staging_buffer_asks_for_large_pages():
    """Where the kernel has them; that it may say no is its business."""
    assert "hg" in mapping_of(staging_buffer(8 * MIB))["VmFlags"].split()


@linux
def test_no_page_of_a_staging_buffer_is_made_again_because_of_a_child():
    """While a child lives, writing to the buffer faults in nothing; the child finds zeros, and may drop it."""
    buffer = staging_buffer(8 * MIB)
    buffer.fill_(7)
    child = os.fork()
    if not child:
        seen = int(buffer[0])
        del buffer
        os._exit(seen)
    before = faults()
    buffer.fill_(8)
    made = faults() - before
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made < 100  # of 2048
    assert int(buffer.min()) == 8


def faults():
    """Return the page faults of this thread."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


@linux
@pytest.mark.parametrize(("seconds", "flag"), [(0.0004, "hg"), (0.006, "nh")])
def test_large_tensors_to_read_into_have_large_pages_while_these_are_cheap(monkeypatch, seconds, flag):
    """And are tensors like any other."""
    clock = itertools.count(step=seconds)
    monkeypatch.setattr(memory.time, "thread_time", lambda: next(clock))
    tensor = empty((64 * MIB,), torch.float32)
    assert flag in mapping_of(tensor)["VmFlags"].split()
    assert tensor.shape == (64 * MIB,)
    assert empty((), torch.int64).shape == ()
    assert empty((0, 3), torch.bfloat16).dtype is torch.bfloat16


SIZES = [1, 7, 2**18, 2**18 + 1, 3 * MIB, 16 * MIB, 16 * MIB + 5, 40 * MIB]


def filled(sizes):
    """Return a source and an empty target of each size."""
    return [(torch.randint(1, 256, (size,), dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)) for size in sizes]


def blocks(pairs):
    return [(target.data_ptr(), source.data_ptr(), source.numel()) for source, target in pairs]


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_every_byte_is_copied(cores):
    """Of blocks of all sizes, on any number of cores, more than once."""
    copier = Copier(num_threads=cores)
    for _ in range(3):
        pairs = filled(SIZES)
        copier.copy(blocks(pairs))
        assert all(torch.equal(source, target) for source, target in pairs)


def test_a_copy_that_another_thread_has_begun_is_waited_for(monkeypatch):
    """However late it is done."""
    main, helped = threading.get_ident(), []

    def memmove(to, start, size):
        if threading.get_ident() != main:
            time.sleep(0.2)
            helped.append(size)
        return original(to, start, size)

    original = ctypes.memmove
    monkeypatch.setattr(copying.ctypes, "memmove", memmove)
    copier = Copier(num_threads=2)
    for _ in range(20):
        pairs = filled([16 * MIB] * 3)
        copier.copy(blocks(pairs))
        assert all(torch.equal(source, target) for source, target in pairs)
        if helped:
            break
    assert helped


def test_a_child_copies_alone():
    """Threads do not outlive a fork: what they would have done is done by the one that is left."""
    copier = Copier(num_threads=2)
    pairs = filled([16 * MIB] * 2)
    copier.copy(blocks(pairs))
    pairs[1][1].zero_()
    child = os.fork()
    if not child:
        copier.copy(blocks(pairs))
        os._exit(0 if bytes(pairs[1][1].numpy()) == bytes(pairs[1][0].numpy()) else 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child waits for a thread that it does not have")
