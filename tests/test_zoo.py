from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from holdfast import zoo
from holdfast.contracts import HoldfastError
from holdfast.models import Architecture
from holdfast.training import load, load_saved, save

ARCHITECTURE = Architecture("mlp", classes=3, in_channels=1, size=4, options={"hidden": [5]})


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A release ours/tiny in the folder that the environment names, the other folder empty."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = ARCHITECTURE.build().half()
    file = tmp_path / "releases" / "ours" / "tiny.safetensors"
    save(model, file, architecture=ARCHITECTURE, classes=[*"abc"])
    write_index(file.parents[1], "ours/tiny", zoo.digest(file))
    monkeypatch.setenv("HOLDFAST_ZOO", str(tmp_path / "releases"))
    return file


def write_index(folder, label, sha256):
    folder.mkdir(exist_ok=True)
    (folder / "index.yaml").write_text(f"{label}:\n  sha256: '{sha256}'\n  about: three classes\n")


def as_holdfast_s(monkeypatch, tmp_path, label, sha256):
    """Let the index of the package have a release."""
    package = tmp_path / "package"
    write_index(package, label, sha256)
    (package / "index.yaml").rename(package / "zoo.yaml")
    monkeypatch.setattr(zoo, "__file__", str(package / "zoo.py"))


def test_a_release_is_a_model_of_single_precision(released):
    model = load("zoo:ours/tiny")
    assert (model.classes, model.origin) == (("a", "b", "c"), "zoo:ours/tiny")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(model(images), load(released).float()(images))
    assert zoo.releases()["ours/tiny"].about == "three classes"


def test_weights_to_begin_with(released):
    begun = Architecture("mlp", 3, 1, 4, weights="zoo:ours/tiny", options={"hidden": [5]}).build()
    for name, tensor in load(released).state_dict().items():
        assert torch.equal(begun.state_dict()[name], tensor.float())
    more = Architecture("mlp", 7, 1, 4, weights="zoo:ours/tiny", options={"hidden": [5]}).build()
    assert more(torch.rand(1, 1, 4, 4)).shape == (1, 7)


def test_another_file_is_refused(released):
    content = bytearray(released.read_bytes())
    content[-1] ^= 1
    released.write_bytes(content)
    with pytest.raises(HoldfastError, match=r"tiny.safetensors is not the released model zoo:ours"):
        load("zoo:ours/tiny")


def test_holdfast_s_own_digest_counts(released, tmp_path, monkeypatch):
    as_holdfast_s(monkeypatch, tmp_path, "ours/tiny", "0" * 64)
    with pytest.raises(HoldfastError, match="is not the released model"):
        load("zoo:ours/tiny")


def test_the_folder_here_is_trusted_by_holdfast_s_digests_alone(released, tmp_path, monkeypatch):
    monkeypatch.delenv("HOLDFAST_ZOO")
    (tmp_path / "releases").rename(tmp_path / "zoo")
    here = tmp_path / "zoo" / "ours" / "tiny.safetensors"
    with pytest.raises(HoldfastError, match="there is no released model 'ours/tiny'"):
        load("zoo:ours/tiny")  # its index is not read
    as_holdfast_s(monkeypatch, tmp_path, "ours/tiny", zoo.digest(here))
    assert load("zoo:ours/tiny").classes == ("a", "b", "c")
    here.write_bytes(here.read_bytes() + b" ")
    with pytest.raises(HoldfastError, match="is not the released model"):
        load("zoo:ours/tiny")


@pytest.mark.parametrize(
    ("place", "repository"), [(None, "holdfast/zoo"), ("hf:mine/models", "mine/models")]
)
def test_what_is_not_here_is_taken_from_the_hub(place, repository, released, tmp_path, monkeypatch):
    as_holdfast_s(monkeypatch, tmp_path, "ours/tiny", zoo.digest(released))
    monkeypatch.delenv("HOLDFAST_ZOO")
    if place is not None:
        monkeypatch.setenv("HOLDFAST_ZOO", place)
    asked = []

    def download(repo_id, filename):
        asked.append((repo_id, filename))
        return str(released)

    monkeypatch.setattr("holdfast.hub._reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load("zoo:ours/tiny").classes == ("a", "b", "c")
    assert asked == [(repository, "ours/tiny.safetensors")]
    released.write_bytes(released.read_bytes() + b" ")
    with pytest.raises(HoldfastError, match="is not the released model"):
        load("zoo:ours/tiny")


def test_says_where_it_looked(released, tmp_path, monkeypatch):
    released.unlink()
    with pytest.raises(HoldfastError, match="there is no file .*tiny.safetensors in the folder"):
        load("zoo:ours/tiny")
    as_holdfast_s(monkeypatch, tmp_path, "ours/tiny", "0" * 64)
    monkeypatch.delenv("HOLDFAST_ZOO")

    def nothing(*_):
        raise LocalEntryNotFoundError("not stored")

    monkeypatch.setattr("holdfast.hub._reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", nothing)
    with pytest.raises(HoldfastError, match=r"neither in ./zoo, nor to be had from holdfast/zoo"):
        load("zoo:ours/tiny")


def test_a_file_of_that_name_goes_before(released, tmp_path):
    save(ARCHITECTURE.build(), tmp_path / "zoo:mine", architecture=ARCHITECTURE, classes=[*"xyz"])
    assert load("zoo:mine").classes == ("x", "y", "z")
    with pytest.raises(HoldfastError, match="there is no released model 'gone'; there are ours/"):
        load("zoo:gone")
    with pytest.raises(HoldfastError, match="there is no released model 'ooo"):
        load("zoo:" + 5000 * "o")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"../up:\n  sha256: {'a' * 64}", "'../up' is no name of a release"),
        (f"/etc/up:\n  sha256: {'a' * 64}", "'/etc/up' is no name of a release"),
        ("ours: 3", "ours.sha256 is no SHA-256"),
        ("ours:\n  sha256: 12", "ours has to have sha256, and may have about: both text"),
        ("ours:\n  sha256: beef", "ours.sha256 is no SHA-256"),
        (f"ours:\n  sha256: {'a' * 64}\n  run: rm", "ours has to have sha256"),
        ("- ours", "expected a mapping"),
        ("ours: [", "index.yaml"),
    ],
)
def test_a_list_that_is_none_is_named(text, says, released):
    (released.parents[1] / "index.yaml").write_text(text)
    with pytest.raises(HoldfastError, match=r"index.yaml") as error:
        load("zoo:ours/tiny")
    assert says in str(error.value)


def test_what_this_repository_releases_is_what_the_package_lists():
    folder = Path(__file__).parents[1] / "zoo"
    if not folder.is_dir():
        pytest.skip("nothing is released yet")
    known = zoo.read_index(Path(zoo.__file__).with_suffix(".yaml"))
    assert zoo.read_index(folder / "index.yaml") == known
    files = {label: folder / f"{label}.safetensors" for label in known}
    assert sorted(folder.rglob("*.safetensors")) == sorted(files.values())
    assert {label: zoo.digest(file) for label, file in files.items()} == {
        label: release.sha256 for label, release in known.items()
    }
    assert sum(file.stat().st_size for file in files.values()) < 20e6
    for file in files.values():
        assert load_saved(file).classes
