"""Who gets hosts, and when: first come, first served."""

from hypothesis import given
from hypothesis import strategies as st

from spotproof.local.capacity import Capacity


def test_small_jobs_do_not_pass_a_large_one():
    """A job of many hosts waits at the head; those behind it wait, too, even if there is room for them."""
    capacity = Capacity(4)
    assert capacity.ask("first", 3)
    assert not capacity.ask("large", 4)
    assert not capacity.ask("small", 1)
    assert capacity.release("first") == ["large"]
    assert capacity.num_used == 4
    assert capacity.release("large") == ["small"]


def test_whoever_leaves_the_queue_lets_the_next_one_in():
    """A job that is stopped while it waits holds nobody up."""
    capacity = Capacity(2)
    capacity.ask("first", 1)
    capacity.ask("large", 2)
    capacity.ask("small", 1)
    assert capacity.release("large") == ["small"]
    assert capacity.has("small")


def test_a_job_that_lost_its_hosts_stands_at_the_end():
    """After release it queues again like a new one."""
    capacity = Capacity(1)
    capacity.ask("reclaimed", 1)
    capacity.ask("waiting", 1)
    assert capacity.release("reclaimed") == ["waiting"]
    assert not capacity.ask("reclaimed", 1)
    assert capacity.release("waiting") == ["reclaimed"]


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5), st.booleans()), max_size=60))
def test_never_more_than_there_is_and_always_in_order(total, moves):
    """Whatever is asked and given back: hosts are not given twice, and who came first is served first."""
    capacity, queue, held = Capacity(total), [], {}
    for number, num_hosts, is_release in moves:
        job, num_hosts = f"job-{number}", min(num_hosts, total)
        if is_release:
            served = capacity.release(job)
            held.pop(job, None)
            queue = [item for item in queue if item[0] != job]
        else:
            if job not in held and job not in dict(queue):
                queue.append((job, num_hosts))
            served = [job] if capacity.ask(job, num_hosts) and job not in held else []
        expected = []
        while queue and sum(held.values()) + queue[0][1] <= total:
            name, size = queue.pop(0)
            held[name] = size
            expected.append(name)
        assert served == expected
        assert capacity.num_used == sum(held.values()) <= total
