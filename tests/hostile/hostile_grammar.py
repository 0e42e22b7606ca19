"""A grammar of malformed input: command lines, recipes, runs, weights, records, data, Python.

Each kind is a strategy of hypothesis that draws cases; `drawn` gives the same ones each time.
"""

import contextlib
import copy
import hashlib
import io
import json
import pickle
import struct
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hostile_sources import png
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

__all__ = ["KINDS", "Case", "drawn"]


@dataclass(frozen=True)
class Case:
    """Something malformed: files, and a command that meets them or an expression in Python.

    ``files`` are laid over a copy of the sound folders ``base``: bytes, None for what is taken
    away, or text, the target of a link.
    """

    arguments: list[str] = field(default_factory=list)
    files: dict[str, bytes | str | None] = field(default_factory=dict)
    base: tuple[str, ...] = ()
    construct: str = ""


def drawn(strategy, count):
    """Draw so many different cases, the same ones in each process."""
    cases, seen = [], set()

    @settings(
        derandomize=True,
        database=None,
        max_examples=4 * count,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(case):
        if len(cases) == count:
            raise _Enough
        key = hashlib.sha256(pickle.dumps(case)).digest()
        if key not in seen:
            seen.add(key)
            cases.append(case)

    with contextlib.suppress(_Enough):
        draw()
    return cases


class _Enough(BaseException):
    """Ends the drawing at once; hypothesis would look for a smaller case of an Exception."""


class _Bomb:
    def __reduce__(self):
        return eval, ("open('marker', 'w').close()",)


PICKLE = pickle.dumps(_Bomb())
MARK = "open('marker', 'w').close()\n"
EXEC = {"class_path": "os.system", "init_args": {"command": "touch marker"}}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
ENTITIES = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'

WORDS = st.sampled_from(
    [
        "",
        " ",
        "-1",
        "0",
        "nan",
        ".nan",
        "inf",
        "-.inf",
        "1e400",
        "1e-3",
        "8/0",
        "1_000",
        "0o7",
        str(2**31),
        str(2**63),
        str(2**70),
        "9" * 5000,
        "x" * 300,
        "y" * 6000,
        "no",
        "null",
        "~",
        "true",
        "2024-01-01",
        "[1, 2]",
        "{a: 1}",
        "{",
        "[" * 3000,
        "{x: " * 200,
        "&a [*a]",
        "*a",
        "!!python/object/apply:os.system ['touch marker']",
        "!!python/name:os.system",
        "%YAML 9",
        "a: b: c",
        "\t",
        "\x1b[2J",
        "a\nb",
        "\u202eabc",
        "ε×",
        "\udcff",
        "\U0001f600",
        "..",
        "/",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "../../../etc/passwd",
        "~root",
        "a/" * 200,
        "a::b",
        "star*",
        "[b]",
        "os:system",
        "os.system",
        "builtins.exec",
        json.dumps(EXEC),
        "pandas",
        "json",
        "text",
        "digits",
        "imagefolder",
        "http://127.0.0.1:1/x",
        "hf://a/b",
        "file:///etc/passwd",
        "<script>",
        "=cmd",
        "--",
        "-",
        "--help-me",
        "%s%n",
        "$(touch marker)",
        "; touch marker",
        "`touch marker`",
    ]
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
WORD = st.one_of(WORDS, WORDS, WORDS, TEXT, (st.integers() | st.floats()).map(str))
# What YAML and JSON can hold.
VALUE = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 2.5, 2**40, 2**70, 1e308, "", "x", "8/0"]),
    st.floats(),
    WORD,
    st.sampled_from([[], {}, [[]], [None], {"class_path": 3}, {"class_path": "Natural"}, EXEC]),
    st.sampled_from([{"class_path": "evil.Run"}, {"init_args": {}}, {"x": {"y": [1]}}, {1: 2}]),
    st.recursive(st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)


# --- command lines -------------------------------------------------------------------------------

OWN = {
    "train": ["--out", "--resume", "--quiet"],
    "explain": ["--architecture", "--trust-code", "--methods", "--out"],
    "audit": [
        *("--architecture", "--trust-code", "--battery", "--eps", "--data", "--source"),
        *("--reference", "--out", "--devices", "--quiet"),
        *("--engine", "--address", "--gpus"),
    ],
    "roar": ["--architecture", "--trust-code", "--retrain", "--methods", "--out", "--quiet"],
    "report": ["--out", "--title", "--tables"],
    "data": ["--skip-broken", "--out"],
    "list": ["--kind"],
    "demo": ["--out", "--seed", "--quiet"],
}
FIELDS = {
    "data": [
        "path",
        "config",
        "train_split",
        "test_split",
        "image_column",
        "label_column",
        "size",
        "channels",
        "limit",
        "seed",
        "validation",
        "balance",
        "augmentation",
        "resize",
        "fit",
        "interpolation",
        "mapping",
    ],
    "model": [
        "name",
        "classes",
        "in_channels",
        "size",
        "weights",
        "options",
        "source",
        "batch_norm",
    ],
    "optimizer": ["name", "lr", "momentum", "nesterov", "weight_decay", "schedule", "interval"],
    "audit": ["attacks", "manipulations", "checks", "explained", "gallery", "shard", "seed", "k"],
    "roar": ["attributions", "shares", "repeats", "baselines", "removal", "seed"],
    "objective": [
        "class_path",
        "init_args",
        "weight",
        "attack",
        "attack.eps",
        "attack.steps",
        "beta",
    ],
    "trainer": [
        "devices",
        "num_nodes",
        "accelerator",
        "precision",
        "max_steps",
        "max_epochs",
        "max_time",
        "strategy",
        "gradient_clip_val",
        "accumulate_grad_batches",
        "limit_train_batches",
        "limit_val_batches",
        "plugins",
        "callbacks",
        "logger",
        "profiler",
        "check_val_every_n_epoch",
        "log_every_n_steps",
        "deterministic",
        "benchmark",
        "detect_anomaly",
        "overfit_batches",
        "fast_dev_run",
        "default_root_dir",
        "min_steps",
        "val_check_interval",
        "num_sanity_val_steps",
        "sync_batchnorm",
        "use_distributed_sampler",
        "barebones",
    ],
}
SETTINGS = [f"--{group}.{name}" for group, names in FIELDS.items() for name in names]
SETTINGS += ["--seed", "--batch_size", "--objective", "--optimizer", "--trainer", "--data"]
SETTINGS += ["--model", "--audit", "--source", "--base", "--set", "--bogus", "--data.bogus"]
FEW = [
    "--data.limit=20",
    "--batch_size=10",
    "--trainer.max_steps=1",
    "--model.options={hidden: [4]}",
    "--quiet",
]
POSITIONAL = {
    "train": ["digits/natural"],
    "explain": ["run", "pictures/test/0/0.png"],
    "audit": ["run"],
    "roar": ["run"],
    "report": ["run"],
    "data": ["import", "cub-200", "cub-200", "imported"],
    "list": [],
    "demo": [],
}
FEW_OF = {
    "train": FEW,
    "audit": ["--data.limit=4", "--audit.manipulations={}", "--audit.explained=1", "--quiet"],
    "roar": ["--data.limit=20", "--roar.shares=[0.5]", "--methods=gradient", "--quiet"],
    "explain": ["--methods=gradient"],
}


@st.composite
def command_lines(draw):
    """Draw a command with a word or two of it malformed."""
    verb = draw(st.sampled_from(["train", "train", "train", *POSITIONAL]))
    arguments = list(POSITIONAL[verb])
    kind = draw(st.integers(0, 9))
    if arguments and kind <= 2:
        arguments[draw(st.integers(0, len(arguments) - 1))] = draw(WORD)
    options = list(FEW_OF.get(verb, []))
    if kind > 1:
        takes = verb in ("train", "audit", "roar", "explain")
        names = st.sampled_from(OWN[verb] + (SETTINGS if takes else []))
        for name in draw(st.lists(names, min_size=1, max_size=2)):
            value = draw(WORD)
            options += draw(st.sampled_from([[f"{name}={value}"], [name, value]]))
    if verb == "demo":
        options = [*options, "--trainer.bogus=1"]  # it would take minutes
    if kind == 9:
        options.append(draw(WORD))
    return Case(_sober([verb, *arguments, *options]), base=("run", "pictures", "cub-200"))


def _sober(arguments):
    """Leave out what is right, and long: a training of many steps, processes by the dozen."""
    long = ("max_steps", "max_epochs", "max_time", "min_steps")
    words = [a.replace("\0", "") for a in arguments]
    kept = [
        a
        for a, after in zip(words, [*words[1:], ""], strict=True)
        if not (any(f"trainer.{name}" in a for name in long) and "1e" in a + after)
    ]
    last = ["--trainer.max_steps=1"] if "--trainer.max_steps=1" in kept else []
    return kept + last


# --- recipes and runs ----------------------------------------------------------------------------

RECIPE = {
    "data": {"path": "digits", "limit": 20, "augmentation": {"flip": True}},
    "model": {"name": "mlp", "options": {"hidden": [4]}},
    "objective": {
        "class_path": "ART",
        "init_args": {"weight": 0.5, "attack": {"eps": "8/255", "step_size": 0.01, "steps": 1}},
    },
    "optimizer": {"name": "sgd", "lr": 0.1, "schedule": {5: 0.01}},
    "batch_size": 10,
    "trainer": {"max_steps": 1, "accelerator": "cpu"},
    "seed": 0,
    "audit": {"explained": 2},
    "source": "nowhere",
}


def _places(tree, path=()):
    """Return the paths of all values in nested mappings and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


@st.composite
def mutated_tree(draw, tree):
    """Draw a tree in which one to three values are another, gone, or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        *above, key = draw(st.sampled_from(places))
        node = tree
        for step in above:
            node = node[step]
        what = draw(st.integers(0, 5))
        if what == 0:
            del node[key]
        elif what == 1 and isinstance(node, dict):
            node[draw(st.sampled_from(["bogus", "class_path", "base", "", "é", 3]))] = (
                copy.deepcopy(draw(VALUE))
            )
        else:
            node[key] = copy.deepcopy(draw(VALUE))
    return tree


@st.composite
def yaml_text(draw, tree):
    """Draw the bytes of a file of YAML with something wrong."""
    kind = draw(st.integers(0, 7))
    if kind <= 4:
        with_fault = draw(mutated_tree(tree))
        return _dumped(with_fault).encode("utf-8", "surrogatepass")
    text = _dumped(tree).encode()
    return draw(mutated_bytes(text)) if kind < 7 else draw(st.sampled_from(_YAML_TRAPS))


def _dumped(tree):
    try:
        return yaml.safe_dump(tree, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError):
        return json.dumps(tree, default=str)


_YAML_TRAPS = [
    b"",
    b"\x00",
    b"- 1\n- 2\n",
    b"just text",
    b"\xff\xfe",
    b"data: {path: digits}\ndata: {path: other}\n",
    b"--- {}\n--- {}\n",
    b"&a [*a]\n",
    b"a: &a\n  b: *a\n",
    BOMB.encode(),
    b"[" * 100_000,
    b"{a: " * 5_000,
    b"!!python/object/apply:os.system ['touch marker']\n",
    b"model: !!python/object/new:os.system ['touch marker']\n",
    b"objective: !!python/name:os.system\n",
    b"base: base.yaml\n",
    b"base: recipe.yaml\n",
    b"base: ../../../etc/passwd\n",
    b"base: /dev/zero\n",
    b"base: [1]\n",
    b"? [a, b]\n: c\n",
    b"1: 2\n",
    b"<<: {a: 1}\n",
    b"seed: " + b"9" * 10_000,
    b"a: " + b"x" * 3_000_000,
]


@st.composite
def mutated_bytes(draw, content):
    """Draw bytes that are cut, changed, or grown somewhere."""
    content = bytearray(content)
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return bytes(content[:at])
    some = draw(st.binary(min_size=1, max_size=6))
    if kind == 1:
        content[at : at + len(some)] = some
    elif kind == 2:
        content[at:at] = some
    elif kind == 3:
        del content[at : at + draw(st.integers(1, 40))]
    else:
        content[at:at] = draw(st.sampled_from([b"\0" * 9, b": ", b"\n", b"\t", b"-1", b"1e999"]))
    return bytes(content)


@st.composite
def recipes(draw):
    """Draw a training by a malformed recipe of the user's own."""
    text = draw(yaml_text(RECIPE))
    options = ["--out=out", "--trainer.max_steps=1", "--data.limit=20", "--quiet"]
    name = draw(st.sampled_from(["recipe.yaml", "recipe.yaml", "config.yaml", "r.yml"]))
    return Case(["train", name, *options], {name: text})


EVIL_MODULES = {
    f"{name}.py": MARK.encode()
    for name in ("evil", "tabulate", "yaml", "numpy", "torch", "pandas", "typing_extensions")
}
ON_A_RUN = [
    ["report", "run"],
    ["audit", "run", "--data.limit=4", "--out=other", "--quiet"],
    ["roar", "run", "--methods=gradient", "--roar.shares=[0.5]", "--out=other", "--quiet"],
    ["explain", "run", "pictures/test/0/0.png", "--methods=gradient"],
    ["train", "digits/natural", "--out=run", "--resume", *FEW],
]


@st.composite
def runs(draw, sound):
    """Draw a command on a run that somebody has sent: its settings are malformed or hostile."""
    text = (sound / "run/config.yaml").read_text()
    tree = yaml.safe_load(text)
    kind = draw(st.integers(0, 5))
    if kind == 0:
        key = draw(st.sampled_from(["objective", "model", "audit", "data", "optimizer"]))
        hostile = draw(st.sampled_from([EXEC, {"class_path": "evil.Run"}, "os.system", "evil:run"]))
        tree[key] = copy.deepcopy(hostile)
        content = _dumped(tree).encode()
    elif kind == 1:
        names = ["os:system", "evil:make", "subprocess:call", "builtins:exec", "vgg16_gap"]
        options = [{"command": "touch marker"}, {"weights": "IMAGENET1K_V1"}, {}]
        tree["model"] |= {
            "name": draw(st.sampled_from(names)),
            "options": draw(st.sampled_from(options)),
        }
        content = _dumped(tree).encode()
    elif kind == 2:
        loaders = ["pandas", "json", "text", "csv", "imagefolder", "parquet", "arrow", "webdataset"]
        tree["data"]["path"] = draw(st.sampled_from(loaders) | WORD)
        content = _dumped(tree).encode()
    else:
        content = draw(yaml_text(tree))
    settings_file = draw(st.sampled_from(["config.yaml", "config.yaml", "audit/settings.yaml"]))
    files = {f"run/{settings_file}": content, "pandas/train.pkl": PICKLE, "data.pkl": PICKLE}
    arguments = draw(st.sampled_from(ON_A_RUN))
    return Case(list(arguments), files | EVIL_MODULES, ("run", "pictures"))


# --- weights, records, pictures ------------------------------------------------------------------


def _safetensors(content):
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _packed(header, rest, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + rest


@st.composite
def mutated_safetensors(draw, content):
    """Draw a file of tensors whose header, metadata or length is not what it must be."""
    header, rest = _safetensors(content)
    kind = draw(st.integers(0, 6))
    if kind <= 2 and "__metadata__" in header:
        metadata = header["__metadata__"]
        key = draw(st.sampled_from(sorted(metadata)))
        try:
            value = json.loads(metadata[key])
        except ValueError:
            value = metadata[key]
        if isinstance(value, dict | list) and value and draw(st.booleans()):
            value = draw(mutated_tree(value))
        else:
            value = draw(VALUE)
        metadata[key] = value if isinstance(value, str) else json.dumps(value, default=str)
        if draw(st.integers(0, 4)) == 0:
            del metadata[key]
        text = json.dumps(header).encode("utf-8", "replace")
        return _packed(text, rest)
    if kind == 3:
        try:
            return _packed(json.dumps(draw(mutated_tree(header)), default=str).encode(), rest)
        except (ValueError, TypeError):
            return b""
    if kind == 4:
        return _packed(header, rest, draw(st.sampled_from([0, 1, 2**31, 2**60, 2**64 - 1])))
    if kind == 5:
        return draw(st.sampled_from([b"", PICKLE, b"\x80\x04", b"PK\x03\x04", b"[" * 9999, png()]))
    return draw(mutated_bytes(content))


@st.composite
def weights(draw, sound):
    """Draw a command on a run whose weights are malformed."""
    content = (sound / "run/model.safetensors").read_bytes()
    files: dict[str, bytes | str | None] = {
        "run/model.safetensors": draw(
            mutated_safetensors(content)
            | mutated_safetensors(content)
            | st.sampled_from(["model.safetensors", "/dev/zero", "/", "/etc/passwd", None])
        )
    }
    if draw(st.integers(0, 4)) == 0:
        files["run/config.yaml"] = None
    arguments = list(draw(st.sampled_from(ON_A_RUN[1:4])))
    if draw(st.integers(0, 4)) == 0:
        arguments[1] = "run/model.safetensors"
    return Case(arguments, files, ("run", "pictures"))


@st.composite
def mutated_parquet(draw, content):
    """Draw a table with values, columns or types that it must not have."""
    table = pq.read_table(io.BytesIO(content))
    kind = draw(st.integers(0, 5))
    if kind == 0 or not table.num_rows:
        return draw(mutated_bytes(content))
    names = table.column_names
    name = draw(st.sampled_from(names))
    if kind == 1:
        table = table.drop_columns([name])
    elif kind == 2:
        other = draw(st.sampled_from(["x", "", "label", "=cmd", "\x1b"]))
        table = table.rename_columns([other if n == name else n for n in names])
    elif kind == 3:
        table = draw(st.sampled_from([table.slice(0, 0), pa.concat_tables([table, table])]))
    else:
        rows = table.to_pylist()
        value = draw(
            st.sampled_from([None, -1, 2**40, 7.5, float("nan"), float("inf"), "", "=cmd()"])
            | st.sampled_from(["<script>alert(1)</script>", "\x1b[2J", [], [1], {"a": 1}, b"\xff"])
            | st.integers(-(2**63), 2**63 - 1)
        )
        every = draw(st.booleans())
        rows = [r | {name: value} if every or not i else r for i, r in enumerate(rows)]
        try:
            table = pa.Table.from_pylist(rows)
        except (pa.ArrowException, OverflowError, TypeError):
            return b"PAR1"
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@st.composite
def records(draw, sound):
    """Draw a report on an audit, a gallery or ROAR's results that are malformed."""
    files = sorted(
        file.relative_to(sound).as_posix()
        for file in (sound / "run").rglob("*")
        if file.is_file() and file.name != "model.safetensors" and "checkpoint" not in str(file)
    )
    # What is a table comes more often than what is text.
    tables = [file for file in files if file.endswith((".parquet", ".safetensors"))]
    name = draw(st.sampled_from(tables + tables + files))
    content = (sound / name).read_bytes()
    if draw(st.integers(0, 9)) == 0:
        changed = draw(st.sampled_from([None, b"", "/dev/null", ".", PICKLE]))
    elif name.endswith(".parquet"):
        changed = draw(mutated_parquet(content))
    elif name.endswith(".safetensors"):
        changed = draw(mutated_safetensors(content))
    elif name.endswith(".yaml"):
        changed = draw(yaml_text(yaml.safe_load(content)))
    else:
        changed = draw(mutated_bytes(content))
    commands = [["report", "run", "--tables=tables"]] * 3
    commands += [["audit", "run", "--quiet"], [*ON_A_RUN[2][:-2], "--out=run/roar", "--quiet"]]
    return Case(list(draw(st.sampled_from(commands))), {name: changed}, ("run",))


# --- data ----------------------------------------------------------------------------------------

SAVED = io.BytesIO()
np.save(SAVED, np.array([_Bomb()], dtype=object), allow_pickle=True)
FILES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", PICKLE, SAVED.getvalue(), ENTITIES.encode(), MARK.encode(), b"\xff\xd8"]),
    mutated_bytes(png()),
    st.sampled_from([png(0, (1, 1)), png(0, (300, 2)), png(0, (4, 4, 4)), png(0, (8, 8, 3))]),
    st.sampled_from(["/dev/zero", ".", "..", "/etc/passwd", "nowhere"]),
)
NAMES = st.sampled_from(
    [
        "0.png",
        "x.txt",
        "x.json",
        "x.csv",
        "x.xml",
        "x.avif",
        "x.gif",
        "x.pkl",
        "x.npy",
        "x.py",
        "metadata.csv",
        "metadata.jsonl",
        "train.pkl",
        "dataset_infos.json",
        "README.md",
        "pictures.py",
        "loader.py",
        ".hidden",
        "[b].png",
        "a::b.png",
        "star*.png",
        "x.zip",
        "x.tar",
        "train.jsonl",
        "data.arrow",
        "state.json",
        "dataset_info.json",
        "x.webp",
    ]
)


@st.composite
def datasets_as_sent(draw, sound):
    """Draw training or auditing on a folder of images or tables that are malformed."""
    if draw(st.booleans()):
        split = draw(st.sampled_from(["train", "test"]))
        content = (sound / "table" / f"{split}.parquet").read_bytes()
        files, base, path = (
            {f"table/{split}.parquet": draw(mutated_parquet(content))},
            "table",
            "table",
        )
        path = draw(st.sampled_from(["table", "table", "table/train.parquet"]))
    else:
        base = path = "pictures"
        files = {}
        for _ in range(draw(st.integers(1, 3))):
            folders = ["train/0", "train", "test/1", "", "Train", "val", "test/test", "train/a b"]
            place = "/".join(
                filter(None, ["pictures", draw(st.sampled_from(folders)), draw(NAMES)])
            )
            files[place] = draw(FILES)
    commands = [
        ["train", "digits/natural", f"--data.path={path}", "--out=out", *FEW],
        ["audit", "run", f"--data={path}", "--data.limit=4", "--out=other", "--quiet"],
        ["data", "show", path],
    ]
    arguments = list(draw(st.sampled_from(commands)))
    if draw(st.integers(0, 3)) == 0 and arguments[0] != "data":
        name = draw(st.sampled_from(FIELDS["data"]))
        arguments.append(f"--data.{name}={draw(WORD)}")
    return Case(_sober(arguments), files, (base, "run"))


@st.composite
def layouts(draw, sound):
    """Draw an import of a published layout, with a malformed file."""
    layout = draw(st.sampled_from(["cub-200", "tiny-imagenet", "gtsrb", "flower-17", "cifar-10-c"]))
    files = sorted(
        file.relative_to(sound).as_posix() for file in (sound / layout).rglob("*") if file.is_file()
    )
    text = [file for file in files if file.endswith((".txt", ".csv", ".npy", ".mat"))]
    name = draw(st.sampled_from(text * 3 + files))
    content = (sound / name).read_bytes()
    kind = draw(st.integers(0, 5))
    if kind == 0:
        changed = draw(FILES | st.none())
    elif kind <= 3 and name.endswith((".txt", ".csv")):
        separator = b";" if name.endswith(".csv") else b"\t" if b"\t" in content else b" "
        lines = [line.split(separator) for line in content.splitlines()]
        row = draw(st.integers(0, len(lines) - 1))
        lines[row][draw(st.integers(0, len(lines[row]) - 1))] = draw(
            WORD.map(lambda word: word.encode("utf-8", "surrogatepass"))
        )
        changed = b"\n".join(separator.join(line) for line in lines)
    else:
        changed = draw(mutated_bytes(content))
    options = draw(st.sampled_from([[], [], ["--skip-broken"]]))
    return Case(
        ["data", "import", layout, layout, "imported", *options], {name: changed}, (layout,)
    )


# --- Python --------------------------------------------------------------------------------------

PYTHON = st.sampled_from(
    [
        *("None", "True", "'x'", "''", "b'x'", "2.5", "-1", "0", "2**70", "10**400", "1e400"),
        *(
            "float('nan')",
            "-float('inf')",
            "[]",
            "{}",
            "()",
            "[1]",
            "{'a': 1}",
            "{1: 2}",
            "object()",
        ),
        *("object", "int", "len", "lambda *a: a", "1j", "range(3)", "...", "NotImplemented"),
        *("np.float32(0.5)", "np.int64(3)", "np.array([1, 2])", "np.nan", "torch.tensor(0.5)"),
        *("torch.ones(2)", "torch.nn.Linear(2, 2)", "torch.float16", "'\\x1b[2J'", "'a\\nb'"),
        *("'x' * 10000", "'\\udcff'", "attributions.Gradient", "attributions.Gradient()"),
        *("adversarial.PGD", "objectives.Natural()", "[[[[]]]]", "{'x': object()}", "set()"),
    ]
)
VALID = {
    "eps": "0.1",
    "step_size": "0.01",
    "steps": "2",
    "attribution": "attributions.Gradient()",
    "k": "3",
    "attributions": "{'gradient': attributions.Gradient()}",
    "attacks": "{}",
    "attack": "adversarial.PGD(eps=0.1, step_size=0.01, steps=2)",
    "data": "data.ImageData()",
    "model": "models.Architecture('mlp')",
    "objective": "objectives.Natural()",
    "name": "'mlp'",
    "teacher": "torch.nn.Linear(2, 2)",
    "source": "torch.nn.Linear(2, 2)",
    "sigma": "0.1",
    "samples": "2",
    "weight": "0.5",
}


@st.composite
def constructed(draw, sound):
    """Draw an expression that makes a public class with an argument of the wrong kind."""
    classes = json.loads((sound / "classes.json").read_text())
    name, parameters = draw(st.sampled_from(classes))
    wrong = draw(st.sampled_from([parameter for parameter, _ in parameters]))
    needed = [parameter for parameter, required in parameters if required]
    given = {p: VALID.get(p, "None") for p in needed} | {wrong: draw(PYTHON)}
    words = ", ".join(f"{key}={value}" for key, value in given.items())
    return Case(construct=f"{name}({words})")


KINDS = {
    "command_lines": (lambda sound: command_lines(), 420),
    "recipes": (lambda sound: recipes(), 300),
    "runs": (runs, 220),
    "weights": (weights, 200),
    "records": (records, 240),
    "data": (datasets_as_sent, 140),
    "layouts": (layouts, 220),
    "python": (constructed, 500),
}
"""What is malformed: how its cases are drawn from sound folders, and how many."""
