"""Where the parts of a model are found that its configuration names by folders."""

import pytest

from espnet2_avsr_llm.inference.load import locate


@pytest.mark.parametrize(
    "source, found",
    [
        ("pretrained/llama", "recipe/trained/pretrained/llama"),  # beside the configuration, though there is one here too
        ("exp/parts/llama", "recipe/exp/parts/llama"),  # in a folder above the configuration, and here
        ("../other/llama", "other/llama"),  # only here
        ("/made/elsewhere/pretrained/llama", "recipe/trained/pretrained/llama"),  # moved: by the end of its path
        ("hub/llama", "hub/llama"),  # nowhere: a name
    ],
)
def test_parts_beside_the_configuration_come_before_those_here(tmp_path, monkeypatch, source, found):
    """As in the GRID recipe: a shipped model beside its parts, and a link to the parts of a run of one's own."""
    for name in ("recipe/trained/pretrained/llama", "recipe/exp/pretrained/llama", "recipe/exp/parts/llama", "other/llama", "recipe/trained/avsr"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "recipe/pretrained").symlink_to("exp/pretrained")
    monkeypatch.chdir(tmp_path / "recipe")
    folder = locate(source, (tmp_path / "recipe/trained/avsr/config.yaml").relative_to(tmp_path / "recipe"))
    assert folder == source if source == found else (tmp_path / "recipe" / folder).resolve() == tmp_path / found
    own = locate("pretrained/llama", tmp_path / "recipe/exp/avsr/config.yaml")
    assert (tmp_path / "recipe" / own).resolve() == tmp_path / "recipe/exp/pretrained/llama"
