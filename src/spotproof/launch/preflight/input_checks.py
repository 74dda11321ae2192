"""The checks of a job's channels. Pure."""

from collections.abc import Iterator

from spotproof.launch.preflight.check import Check, error, ok, unknown, warning
from spotproof.launch.preflight.facts import Facts, Missing, Unseen
from spotproof.spec import Channel, JobSpec

__all__ = ["check_inputs"]


def check_inputs(spec: JobSpec, facts: Facts) -> Iterator[Check]:
    """Yield what is known of each channel."""
    for name, channel in spec.inputs.items():
        subject = f"inputs.{name}"
        if channel.file_system_id is not None:
            yield from _check_file_system(subject, channel, spec)
            continue
        found = facts.inputs.get(name, Unseen("not looked at"))
        if isinstance(found, Missing):
            yield error(
                subject, f"{channel.place} is not there: {found.text}", "Correct the URI, or `spotproof upload`."
            )
        elif isinstance(found, Unseen):
            yield unknown(subject, found.reason)
        elif found.num_objects == 0:
            yield error(
                subject,
                f"nothing lies below {channel.place}: the service refuses an empty input",
                f"Upload it: spotproof upload FOLDER {channel.place}",
            )
        else:
            noun = "1 file" if found.num_objects == 1 else f"{found.num_objects} files"
            count = f"{noun}{' or more' if found.has_more else ''}, {_bytes(found.size_bytes)}"
            yield ok(subject, f"{count}, to be uploaded" if channel.local_path is not None else count)
            yield from _check_disk(subject, channel, found.size_bytes, spec)
        if channel.compression == "Gzip" and (channel.input_mode or spec.input_mode) != "Pipe":
            yield warning(
                subject,
                "compression is for Pipe mode; in others the service may hand out the files as they are",
                "Have the program unpack them, and leave compression out.",
            )


def _check_disk(subject: str, channel: Channel, size_bytes: int, spec: JobSpec) -> Iterator[Check]:
    mode = channel.input_mode or spec.input_mode
    if mode == "File" and size_bytes > 0.9 * spec.volume_size * 1e9:
        yield warning(
            subject,
            f"{_bytes(size_bytes)} are copied to a disk of {spec.volume_size} GB, besides checkpoints and model",
            "Set a larger volume_size, or input_mode: FastFile. A type with disks of its own may have more.",
        )


def _check_file_system(subject: str, channel: Channel, spec: JobSpec) -> Iterator[Check]:
    """Source: the API model, FileSystemDataSource; Guide, "Configure data input channel to use FSx for Lustre"."""
    yield unknown(subject, f"{channel.place} lies in your VPC and can't be seen from here")
    if channel.file_system_access_mode == "rw" and spec.use_spot_instances:
        yield warning(
            subject,
            "what the program writes to the file system stays there after a reclaim: the next attempt finds it",
            "Write file_system_access_mode: ro, if the program only reads.",
        )
    if channel.file_system_type == "FSxLustre":
        if (channel.directory_path or "/").strip("/") == "":
            yield warning(
                subject,
                "directory_path is the root; for FSx it begins with the file system's mount name",
                "Write /MOUNTNAME/folder, as `aws fsx describe-file-systems` names it; /fsx for the oldest type.",
            )
        if len(spec.subnets) > 1:
            yield warning(
                subject,
                f"an FSx file system is in one zone, and {len(spec.subnets)} subnets are given",
                "Name the subnet of its zone: from others the data crosses zones, and is paid for.",
            )
    if spec.use_spot_instances and len(spec.subnets) == 1:
        yield warning(
            "subnets",
            "one subnet is one zone: spot capacity can come from that zone only, and waiting will be longer",
            "With EFS name a subnet in each zone; with FSx reckon with more waiting, or copy the data to S3.",
        )


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB" if count >= 1e5 else f"{count} bytes"
