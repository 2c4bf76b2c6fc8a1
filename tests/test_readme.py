"""What README shows works as it stands."""

import re
from pathlib import Path

import pytest

from evo.config_file import load_config

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_config_in_readme_loads(tmp_path, monkeypatch):
    (text,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    for folder in re.findall(r"models/\w+", text):
        (tmp_path / folder).mkdir(parents=True)
    files = [f"tasks/sums.{s}.jsonl" for s in ("dev", "select", "test")]
    for name in files + re.findall(r"quiz/\w+\.jsonl", text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine.yaml").write_text(text)
    config = load_config(tmp_path / "mine.yaml", ["seed=1"])
    assert list(config.founders) == ["maths", "japanese", "code"]
    assert config.seed == 1


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./]+)\)", README))
def test_links_in_readme_lead_somewhere(path):
    assert (Path(__file__).parents[1] / path).exists()
