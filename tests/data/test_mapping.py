from pathlib import Path

import pytest

from holdfast.contracts import InputError
from holdfast.data.mapping import read_mapping


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.json",
            '{"cat": 281, "dog": "golden retriever"}',
            {"cat": 281, "dog": "golden retriever"},
        ),
        ("a.json", '["cat", "dog"]', ("cat", "dog")),
        ("a.csv", "class,index\ncat,281\ndog,207\n", {"cat": 281, "dog": 207}),
        ("a.csv", "index,name\n0,cat\n1,dog\n", {"0": "cat", "1": "dog"}),
        ("a.csv", 'cat,281\n"tench, Tinca tinca",0\n\n', {"cat": 281, "tench, Tinca tinca": 0}),
        ("a.csv", "cat, tabby\ndog,husky\n", {"cat": "tabby", "dog": "husky"}),
        ("a.csv", "cat\ndog\n", ("cat", "dog")),
        ("a.tsv", "cat\t281\ntench, Tinca tinca\t0\n", {"cat": 281, "tench, Tinca tinca": 0}),
        ("a.txt", "cat\ngolden retriever\n\n", ("cat", "golden retriever")),
        ("classes", "\ufeffcat\r\ndog", ("cat", "dog")),
    ],
)
def test_files_of_every_kind(tmp_path: Path, name: str, text: str, expected: object) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_mapping(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"),
        ("a.json", "{}"),
        ("a.json", "3"),
        ("a.json", '{"cat": 1.5}'),
        ("a.json", '{"cat": true}'),
        ("a.json", "[1, 2]"),
        ("a.csv", "cat,1,x\n"),
        ("a.csv", "cat,1\ndog\n"),
        ("a.csv", "cat,1\ncat,2\n"),
        ("a.csv", ""),
        ("a.txt", ""),
        ("a.txt", "cat\n\ndog\n"),
    ],
)
def test_what_is_no_mapping_is_refused_in_a_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(
        InputError, match=r"^mapping: expected .*a JSON, CSV or text file"
    ) as caught:
        read_mapping(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("missing.txt", "b.txt", "."):
        with pytest.raises(InputError, match="^mapping: expected 'index', 'imagenet', or a JSON"):
            read_mapping(tmp_path / name)
