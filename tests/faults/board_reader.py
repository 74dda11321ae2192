"""What TensorBoard's own readers see in a folder of event files."""

import tempfile
from collections import Counter
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from spotproof.contract import EVENT_FILE_WORD
from spotproof.storage import open_storage


class Board:
    """A logger's version folder, read once; *place* is a directory or an S3 prefix."""

    def __init__(self, place):
        self.names = []
        self.curves = {}
        """tag -> [(step, value)], by the reader behind TensorBoard's own page."""
        self.points = Counter()
        """(tag, step, value) of every scalar in every file, whatever a reader would purge."""
        self.words = Counter()
        """(tag, step) of every text."""
        storage = open_storage(place)
        with tempfile.TemporaryDirectory() as folder:
            for entry in storage.list():
                self.names.append(entry.key)
                if EVENT_FILE_WORD in entry.key:
                    copy = Path(folder, entry.key)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(storage.get(entry.key))
            for directory in sorted({path.parent for path in Path(folder).rglob("*") if path.is_file()}):
                self._read(directory, directory.relative_to(folder).as_posix())

    def _read(self, directory, name):
        reader = EventAccumulator(str(directory), tensor_size_guidance={"scalars": 0}).Reload()
        for tag in reader.Tags()["tensors"]:
            if reader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                points = [
                    (each.step, float(tensor_util.make_ndarray(each.tensor_proto))) for each in reader.Tensors(tag)
                ]
                self.curves[f"{name}/{tag}"] = points
        for file in sorted(directory.glob(f"*{EVENT_FILE_WORD}*")):
            for event in EventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    kind = value.metadata.plugin_data.plugin_name
                    if kind == "scalars":
                        number = float(tensor_util.make_ndarray(value.tensor))
                        self.points[f"{name}/{value.tag}", event.step, number] += 1
                    elif kind == "text":
                        self.words[value.tag, event.step] += 1


def assert_one_curve(killed, base):
    """No overlap and no hole, to any reader: the same points, in the same order, each once."""
    assert base.curves
    assert not killed.curves.keys() ^ base.curves.keys(), killed.curves.keys() ^ base.curves.keys()
    for tag, points in base.curves.items():
        assert killed.curves[tag] == points, (tag, killed.curves[tag], points)
    for found, wanted in ((killed.points, base.points), (killed.words, base.words)):
        assert found == wanted, (found - wanted, wanted - found)
