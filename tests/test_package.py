"""The package as it is installed: its public face, and what loading a checkpoint takes."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import semcot
from semcot.files import whole


@pytest.mark.parametrize("name", semcot.__all__)
def test_public_names(name):
    assert getattr(semcot, name).__name__ == name and name in dir(semcot)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'semcot' has no attribute 'nothing'"):
        semcot.nothing  # noqa: B018


def test_loading_needs_the_four_packages_alone():
    code = "import modeling_semcot, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    workbench = {"semcot", "datasets", "evaluate", "sentence_transformers", "gguf", "pydantic", "yaml"}
    # What transformers brings in by itself where it is installed is not ours.
    code = "import transformers, transformers.generation, huggingface_hub, sys; print(*sys.modules)"
    own = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not (workbench & {*done.stdout.split()}) - {name.partition(".")[0] for name in own.stdout.split()}


def test_requirements_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in ("workbench", "app"):
        wanted += [part for part in project["optional-dependencies"][extra] if not part.startswith("semcot")]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == wanted


@pytest.mark.parametrize("end", [KeyboardInterrupt, None])
def test_a_file_is_written_whole_or_not_at_all(end, tmp_path):
    file = tmp_path / "new" / "figures.json"
    try:
        with whole(file) as unfinished:
            unfinished.write_text("{}")
            assert not file.exists()
            if end:
                raise end
    except KeyboardInterrupt:
        pass
    assert [found.name for found in file.parent.iterdir()] == ([] if end else ["figures.json"])
