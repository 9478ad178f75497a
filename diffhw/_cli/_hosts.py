"""Which process of several this one is. Work is shared through files, so nobody waits for a peer.

`jax.distributed` is not needed for that and is left alone unless asked for. Measured on two processes
with jax 0.10.2: when one is killed the other aborts too, at once or after the heartbeat (100 s by default);
with recoverable tasks it survives any peer but the coordinator.
"""

import os

from diffhw._cli._errors import UserError

__all__ = ["host_of", "start_distributed"]

_HEARTBEAT_S = 10
_TASKS = (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
_INDEX = "JOB_COMPLETION_INDEX"  # of an indexed Kubernetes job, which does not say how many there are


def _whole(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else None


def host_of(args) -> tuple[int, int]:
    """(number of this process, of how many): from the options, else from SLURM, MPI or Kubernetes.

    Raises UserError for one option without the other, or a number that is too large.
    """
    count, own = args.hosts, args.host_id
    if count is None and own is None:
        for size, rank in _TASKS:
            tasks, index = _whole(size), _whole(rank)
            if tasks is not None and index is not None and tasks > 1:
                return index, tasks
    if own is None and count is not None:
        own = _whole(_INDEX)
        if own is None and count > 1:
            raise UserError(f"--hosts {count} needs --host-id, from 0 to {count - 1}")
    if own is not None and count is None:
        raise UserError(f"--host-id {own} needs --hosts, the number of processes")
    own, count = own or 0, count or 1
    if own >= count:
        raise UserError(f"--host-id must be from 0 to {count - 1} with --hosts {count}, got {own}")
    return own, count


def start_distributed(jax, args, host: tuple[int, int]) -> None:
    """`jax.distributed`, if --coordinator was given. Raises UserError."""
    if args.coordinator is None:
        return
    address, colon, port = args.coordinator.rpartition(":")
    if not colon or not address or not port.isdigit():
        raise UserError(f"--coordinator must be HOST:PORT, got {args.coordinator!r}")
    own, count = host
    if count < 2:
        raise UserError("--coordinator needs --hosts N and --host-id I with N > 1")
    jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(
            args.coordinator, count, own, heartbeat_timeout_seconds=_HEARTBEAT_S, initialization_timeout=60
        )
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise UserError(f"--coordinator {args.coordinator} cannot be reached by all hosts: {text}") from None
