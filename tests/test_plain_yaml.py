import math
import time

import pytest
import yaml

from holdfast import plain_yaml
from holdfast.contracts import HoldfastError
from holdfast.training.recipe import read_recipe, recipe_names

# Ten times ten times …: nothing to write, and more than any memory to read.
BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
DEEP_BY_ALIASES = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("[null, ~, Null, '', ]", [None, None, None, ""]),
        ("[true, False, no, yes, on, off, y]", [True, False, "no", "yes", "on", "off", "y"]),
        ("[7, -7, +7, 010, 0o10, 0x1F]", [7, -7, 7, 10, 8, 31]),
        ("[1e-3, .5, 5., -1.5E+2, 8/255]", [0.001, 0.5, 5.0, -150.0, "8/255"]),
        ("[.inf, -.inf]", [math.inf, -math.inf]),
        ("[2024-01-01, 12:30, 1_000]", ["2024-01-01", "12:30", "1_000"]),
        ("{50: 0.1, a: {b: [c]}}", {50: 0.1, "a": {"b": ["c"]}}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("'<<': '1'", {"<<": "1"}),
        ("\ufeffa: ü", {"a": "ü"}),
    ],
)
def test_reads_the_core_schema_of_yaml_1_2(text, value):
    assert plain_yaml.parse(text, "f") == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BOMB, "line 6: more than 50,000 values"),
        ("- x\n" * 50_001, "more than 50,000 values"),
        (DEEP_BY_ALIASES, "nested deeper than 50"),
        ("[" * 100_000, "line 1: nested deeper than 50"),
        ("- " * 100_000, "nested deeper than 50"),
        ("? " * 100_000, "nested deeper than 50"),
        ("{a: " * 100_000, "nested deeper than 50"),
        ("&a [*a]", "stands for nothing that came before"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "line 4: 'c' is there twice"),
        ("1: a\n1: b", "1 is there twice"),
        ("true: a", "True is a key"),
        ("1.5: a", "1.5 is a key"),
        ("null: a", "None is a key"),
        ("[a]: b", "is a key"),
        ("<<: {a: 1}", "merge keys"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("!!python/object/apply:os.system [true]", "tags such as"),
        ("a: !!str 5", "tags such as"),
        ("a: ! 5", "tags such as"),
        ("a: \0", "no valid YAML"),
        ('a: "\\0"', "NUL"),
        ("a: \ud800", "no valid YAML"),
        ("a: [1", "line 2: no valid YAML"),
        ("a: b: c", "line 1: no valid YAML"),
        ("9" * 5_000, "more than 64 bits"),
        ("0x" + "f" * 5_000, "more than 64 bits"),
        ("%YAML 3.0\n---\na", "no valid YAML"),
        ("x" * 2_000_001, "2,000,001 characters"),
    ],
)
def test_refuses_in_one_line_and_soon(text, fault):
    begun = time.process_time()
    with pytest.raises(HoldfastError) as error:
        plain_yaml.parse(text, "sent.yaml")
    assert time.process_time() - begun < 5  # a fifth of it without the suite's checks of types
    message = str(error.value)
    assert message.startswith("sent.yaml")
    assert fault in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "content", [b"a: \xff", b"a: " + b"x" * 2_000_001, b"a: \x00", "a: b".encode("utf-16")]
)
def test_names_a_file_that_it_cannot_read(tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(HoldfastError, match=r"config\.yaml"):
        plain_yaml.read(file)


def test_names_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none", "a\0b", "x" * 5_000):
        with pytest.raises(HoldfastError):
            plain_yaml.read(path)


@pytest.mark.parametrize("text", ["", "- a", "text", "1: 2"])
def test_settings_are_a_mapping_of_names(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(HoldfastError, match=r"settings\.yaml: expected"):
        plain_yaml.read_mapping(file)


def test_what_it_writes_is_read_alike_by_itself_and_by_yaml_1_1():
    words = [
        "no",
        "y",
        "true",
        "~",
        "null",
        "1e3",
        "1e-05",
        "1_0",
        "0o7",
        "0x1F",
        "010",
        "5.",
        "+1",
        "2024-01-01",
        "1:30",
        ".inf",
        "=",
        "<<",
        "a:b",
    ]
    value = {
        "text": [*words, "", " ", "\n", "ü\u2028\x07", "#", "'", '"'],
        "numbers": [1e-5, 1e22, -0.0, 0, -7, 2**64 - 1, True, None, math.inf],
        "tuple": (1, 2),
        5: {"a": []},
    }
    expected = value | {"tuple": [1, 2]}
    text = plain_yaml.dump(value)
    assert plain_yaml.parse(text, "f") == expected
    assert yaml.safe_load(text) == expected


def test_a_value_that_occurs_twice_is_written_twice_and_read_apart():
    shared = {"a": 1}
    assert "&" not in plain_yaml.dump([shared, shared])
    first, second = plain_yaml.parse("[&x {a: 1}, *x]", "f")
    first["a"] = 2
    assert second == {"a": 1}


def test_every_recipe_comes_back_as_it_was_written():
    for name in recipe_names():
        settings = read_recipe(name)
        assert plain_yaml.parse(plain_yaml.dump(settings), name) == settings
        # As runs of earlier versions wrote it.
        assert plain_yaml.parse(yaml.safe_dump(settings), name) == settings
