"""The model "mpnet": volumes are joined whole or not at all, and only the weights that were asked for."""

import hashlib
import io
import zipfile

import pytest
from textgym_plugins import mpnet_model

import textgym
from textgym.lm.source import cache_folder, resolve_model

WEIGHTS = bytes(range(256)) * 50


def cut(folder, names=mpnet_model.FILES, n=3):
    """Return volumes of an archive of `names`, and the SHA-256 of its weights."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in names:
            archive.writestr(f"{mpnet_model.NAME}/{name}", WEIGHTS if name == "model.safetensors" else "{}")
        archive.writestr("../escaped", "no")
    data = whole.getvalue()
    size = -(-len(data) // n)
    parts = [folder / f"part.{k}" for k in range(n)]
    for k, part in enumerate(parts):
        part.write_bytes(data[k * size : (k + 1) * size])
    return parts, hashlib.sha256(WEIGHTS).hexdigest()


def test_volumes_become_a_model_folder(tmp_path):
    parts, sha256 = cut(tmp_path)
    mpnet_model.join(parts, tmp_path / "cache" / "model", sha256)
    assert {path.name for path in (tmp_path / "cache" / "model").iterdir()} == set(mpnet_model.FILES)
    assert (tmp_path / "cache" / "model" / "model.safetensors").read_bytes() == WEIGHTS
    assert not (tmp_path / "cache" / "escaped").exists()


@pytest.mark.parametrize("fault", ["other weights", "a volume missing", "a file missing"])
def test_a_faulty_archive_leaves_nothing_behind(fault, tmp_path):
    names = mpnet_model.FILES[:-1] if fault == "a file missing" else mpnet_model.FILES
    parts, sha256 = cut(tmp_path, names)
    if fault == "a volume missing":
        parts = parts[:-1]
    (tmp_path / "cache").mkdir()
    with pytest.raises(textgym.InvalidArgumentError, match="reinstall them"):
        mpnet_model.join(parts, tmp_path / "cache" / "model", "0" * 64 if fault == "other weights" else sha256)
    assert not list((tmp_path / "cache").iterdir())


def test_the_extra_is_named_where_a_package_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mpnet_model, "find_spec", lambda name: None)
    with pytest.raises(textgym.MissingExtraError, match=r"textgym\[mpnet\]"):
        resolve_model("mpnet")
    assert not cache_folder().exists()
