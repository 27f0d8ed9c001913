"""File names made of prompts."""

import pytest

from diffsplat.pipelines.prompt_file_names import slug


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("A red  Chair!", "a-red-chair"), ("a Löwe", "a-lowe"), ("椅子", "object"), ("x" * 70, "x" * 60)],
)
def test_a_prompt_becomes_a_file_name(prompt: str, name: str):
    assert slug(prompt) == name
