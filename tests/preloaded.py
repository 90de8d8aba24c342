"""Processes that begin with the heavy packages imported: forked from a server that did nothing else, each saves seconds of imports."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch._dynamo",  # imported by torch's optimisers
    "scipy.optimize",
    "scipy.stats",
    "sklearn.linear_model",
    "matplotlib.figure",
    "stable_baselines3",
    "transformers.models.gpt2.modeling_gpt2",
    "pytest",
    "textgym.agent",
    "textgym.cli.main",
    "textgym.experiments.train",
    "textgym.learning.text_agent",
    "textgym.sb3",
]


def run_function(function: Callable[..., object], *arguments: Any) -> tuple[int, str]:
    """Call a function of a module in a process of its own.

    Returns:
        The process's exit code, negative for a signal, and what it wrote to standard error.
    """
    done = _run(_call, (function, arguments), None, None)
    return done.returncode, done.stderr


def textgym_command(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: str | Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `textgym ARGUMENTS` in a process of its own.

    Args:
        arguments: Of the command line.
        env: The whole environment; by default this process's.
        cwd: The folder it runs in.
    """
    return _run(_command, (arguments,), env, cwd)


def _run(
    target: Callable[..., None], arguments: tuple[Any, ...], env: Mapping[str, str] | None, cwd: str | Path | None
) -> "subprocess.CompletedProcess[str]":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        given = (target, arguments, dict(os.environ if env is None else env), os.fspath(cwd or os.getcwd()), *outputs)
        process = context.Process(target=_begin, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        stdout, stderr = (Path(output).read_text() if os.path.exists(output) else "" for output in outputs)
    return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _begin(target: Callable[..., None], arguments: tuple[Any, ...], env: Mapping[str, str], cwd: str, stdout: str, stderr: str) -> None:
    """Take environment, folder and outputs as a new process would, and go on with what is asked."""
    import torch

    for path, stream in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    added = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[:0] = added
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    torch.set_num_threads(1)
    target(*arguments)


def _call(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def _command(arguments: tuple[str, ...]) -> None:
    from textgym.cli.main import main

    sys.argv = ["textgym", *arguments]
    main()
