"""Device: where torch computes, as a user names it."""

from textgym.errors import InvalidArgumentError


def check_device(device: str) -> None:
    """Raise `InvalidArgumentError` for a name that torch does not know, or a device that this machine does not have."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidArgumentError(f'device {device!r} cannot be used: give "cpu", or "cuda" where there is a GPU ({reason})') from None
