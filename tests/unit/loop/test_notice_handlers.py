"""Signal handlers: set a flag, are chained, and leave no trace."""

import os
import signal
import threading

import pytest

from spotproof.errors import SpecError
from spotproof.loop.notice import Notice, Woken


@pytest.fixture(autouse=True)
def handlers_stay():
    """No test leaves a handler behind."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert before == [signal.getsignal(number) for number in numbers]


@pytest.fixture
def notice():
    """One that listens to SIGTERM and SIGUSR1."""
    notice = Notice(["sigterm", "sigusr1"])
    notice.install()
    yield notice
    notice.remove({})


def raise_signal(number):
    """Send *number* to this process and let its handler run."""
    os.kill(os.getpid(), number)


def test_the_first_notice_counts(notice):
    """A signal is noted with its time; a later one changes neither."""
    assert notice.source is None
    raise_signal(signal.SIGUSR1)
    first = (notice.source, notice.at)
    raise_signal(signal.SIGTERM)

    assert first[0] == "SIGUSR1"
    assert first == (notice.source, notice.at)


def test_it_wakes_only_where_it_may_and_only_once(notice):
    """Outside marked stretches a flag is all; inside the main thread is woken, with the exit code of interruptions."""
    raise_signal(signal.SIGTERM)
    notice.may_wake = True
    with pytest.raises(Woken) as caught:
        raise_signal(signal.SIGTERM)
    raise_signal(signal.SIGTERM)

    assert caught.value.code == 143


def test_earlier_handlers_are_called_and_put_back():
    """The program's own handler still runs, and is the handler again afterwards."""
    seen = []

    def own(number, frame):
        seen.append(number)

    original = signal.signal(signal.SIGTERM, own)
    try:
        notice = Notice(["sigterm"])
        notice.install()
        raise_signal(signal.SIGTERM)
        notice.remove({})
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, original)
    assert seen == [signal.SIGTERM]
    assert notice.source == "SIGTERM"


def test_what_others_will_put_back_is_not_ours(notice):
    """Lightning remembers our handler as the original one and restores it after us: it gets the one before instead."""
    remembered = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)}
    before = dict(notice._previous)
    notice.remove(remembered)

    assert remembered == {**before, signal.SIGHUP: signal.getsignal(signal.SIGHUP)}


def test_a_handler_that_came_later_is_taken_over(notice):
    """hold() takes the signals back, and does not forget who was there first."""
    first = notice._previous[signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    notice.hold()
    raise_signal(signal.SIGTERM)

    assert notice.source == "SIGTERM"
    assert notice._previous[signal.SIGTERM] is first


def test_outside_the_main_thread_it_says_that_it_is_deaf():
    """No handler is set there, and install() tells so."""
    notice, heard = Notice(["sigterm"]), []
    thread = threading.Thread(target=lambda: heard.append(notice.install()))
    thread.start()
    thread.join()

    assert heard == [False]
    assert not notice.is_listening


def test_a_poller_wakes_the_main_thread():
    """A notice from a thread reaches the main thread wherever it waits; the signal for it does nothing by default."""

    class Poller:
        def start(self, on_notice):
            self.on_notice = on_notice

        def stop(self):
            pass

    poller = Poller()
    notice = Notice(["ec2"], [poller])
    notice.install()
    try:
        notice.may_wake = True
        thread = threading.Timer(0.01, poller.on_notice, args=("EC2 terminate",))
        thread.start()
        with pytest.raises(Woken):
            threading.Event().wait(30)
        thread.join()
        assert notice.source == "EC2 terminate"
    finally:
        notice.remove({})


def test_ctrl_c_is_not_touched(notice):
    """SIGINT stays Python's."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("sources", [["sigkill"], "sigterm", ["SIGTERM"]])
def test_unknown_sources_are_refused(sources):
    """By name, with the choice there is."""
    with pytest.raises(SpecError, match=r"names no source of notices. Choose from sigterm"):
        Notice(sources)
