import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torchvision.models import ResNet50_Weights

from holdfast.contracts import HoldfastError, InputError
from holdfast.data import imagenet_classes, match_classes

TORCHVISION = tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
IDS = tuple(imagenet_classes())
WORDNET = tuple(imagenet_classes().values())
NUMBERS = tuple(map(str, range(10)))


def refused(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(HoldfastError) as caught:
        match_classes(*arguments, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_table_of_imagenet_is_in_the_order_of_torchvisions_models() -> None:
    # Facts from elsewhere: torchvision's names of its logits, and ids that every paper cites.
    assert len(set(IDS)) == 1000
    assert tuple(sorted(IDS)) == IDS
    own = {"crane bird", "maillot tank suit"}  # names that are torchvision's own
    for ours, theirs in zip(WORDNET, TORCHVISION, strict=True):
        assert theirs in own or theirs in ours.split(", ")
    for place, wordnet_id in {0: "n01440764", 281: "n02123045", 999: "n15075141"}.items():
        assert IDS[place] == wordnet_id


@pytest.mark.parametrize(
    "model", [IDS, WORDNET, TORCHVISION], ids=["ids", "wordnet", "torchvision"]
)
def test_ids_find_their_logits_in_any_order(model: Sequence[str]) -> None:
    some = [950, 3, 134, 517, 638, 639, 263, 474, 836, 837, 657, 744]
    assert match_classes([IDS[place] for place in some], model) == tuple(some)
    folders = [f"{IDS[place]}_{TORCHVISION[place].replace(' ', '_')}" for place in some]
    assert match_classes(folders, model) == tuple(some)
    assert match_classes([f"{IDS[i]} {WORDNET[i]}" for i in some], model) == tuple(some)


@pytest.mark.parametrize(
    "model", [IDS, WORDNET, TORCHVISION], ids=["ids", "wordnet", "torchvision"]
)
def test_all_torchvision_names_at_once_find_their_logits(model: Sequence[str]) -> None:
    if model is TORCHVISION:
        assert match_classes(TORCHVISION, model) == tuple(range(1000))
    plain = [i for i, name in enumerate(TORCHVISION) if "crane" not in name and "mail" not in name]
    plain = [i for i in plain if TORCHVISION[i].lower() != "cardigan"]
    assert match_classes([TORCHVISION[i] for i in plain], model) == tuple(plain)
    lists = [i for i, name in enumerate(WORDNET) if i in plain]
    assert match_classes([WORDNET[i] for i in lists], model) == tuple(lists)


@pytest.mark.parametrize("name", ["crane", "Crane", "maillot", "cardigan", "Cardigan"])
@pytest.mark.parametrize(
    "model", [IDS, WORDNET, TORCHVISION], ids=["ids", "wordnet", "torchvision"]
)
def test_a_name_that_two_logits_share_is_refused(model: Sequence[str], name: str) -> None:
    message = refused(["tench", name], model)
    assert f"class {name!r} of the data fits several logits of the model" in message
    assert "WordNet id" in message
    assert "--data.mapping FILE" in message


def test_an_id_settles_what_a_name_leaves_open() -> None:
    also = [("n02012849", "crane"), ("n03126707", "crane")]
    assert match_classes(["0", "1"], TORCHVISION, synonyms=also) == (134, 517)
    assert match_classes(["0", "1"], WORDNET, synonyms=[tuple(reversed(row)) for row in also]) == (
        134,
        517,
    )


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Golden_Retriever", "golden retriever"),
        ("golden-retriever", "Golden Retriever, goldie"),
        ("ice cream", "ice_cream"),
        ("T-shirt/top", "tshirt top"),
        ("Tinca tinca", "tench, Tinca tinca"),
        ("tench, Tinca tinca", "Tench"),
        ("café", "CAFE"),
        ("+", "+"),
        ("n99999999", "n99999999"),
        ("n01440764", "tench"),
        ("tench", "n01440764"),
        ("猫", "猫"),
    ],
)
def test_spellings_that_are_the_same_name(name: str, model: str) -> None:
    assert match_classes([name, "last"], ["first", model, "last"]) == (1, 2)


def test_the_first_name_of_a_list_goes_before_the_others() -> None:
    model = ["projectile, missile", "missile"]
    assert match_classes(["missile", "projectile, missile"], model) == (1, 0)
    assert match_classes(["missile"], model) == (1,)
    assert "several logits" in refused(["x, b"], ["a, b", "c, b"])


def test_names_that_differ_in_case_alone_need_each_other() -> None:
    model = ("Polish", "polish", "cat")
    assert match_classes(("polish", "Polish"), model) == (1, 0)
    assert "several logits of the model, 0 ('Polish'), 1 ('polish')" in refused(("polish",), model)


def test_names_that_match_nothing_are_refused() -> None:
    message = refused(("cat", "wolf", "fox"), ("cat", "dog", "bird", "fish"))
    assert message.startswith(
        "no logit of the model fits class 'wolf' of the data (nor 1 more); the model has 'cat', "
        "'dog', 'bird' …; "
    )
    assert "both fit logit 0 of the model, 'cat'" in refused(("cat", "CAT"), ("cat", "dog"))


def test_an_id_that_the_model_has_not_is_not_found_by_its_name() -> None:
    # Both cranes are called so; the model knows the machine alone.
    model = ["n03126707", "n01440764"]
    assert "fits class 'n02012849' (crane)" in refused(
        ["0"], model, synonyms=[("n02012849", "crane")]
    )
    sharks = [("n01484850",), ("n01491361",)]
    assert "fits class 'n01484850'" in refused(["0", "1"], model, synonyms=sharks)
    assert "fits class 'n01484850'" in refused(["0", "1"], ["cat", "dog"], synonyms=sharks)
    assert match_classes(["0", "1"], ["0", "1"], synonyms=sharks) == (0, 1)


def test_names_in_another_order_are_not_taken_for_imagenets() -> None:
    shuffled = (TORCHVISION[1], TORCHVISION[0], *TORCHVISION[2:])
    assert match_classes(("n01440764", "n01443537"), shuffled) == (1, 0)
    assert "several logits" in refused(("n02012849",), tuple(reversed(WORDNET)))


def test_classes_without_images_need_no_logit() -> None:
    model = ("cat", "dog")
    assert match_classes(("dog", "wolf", "cat"), model, present={0, 2}) == (1, -1, 0)
    assert match_classes(("dog", "DOG"), model, present=[0])[0] == 1


# --- numbers -------------------------------------------------------------------------------------


def test_labels_that_are_all_places_are_places() -> None:
    for model in (10, NUMBERS, [f"LABEL_{i}" for i in range(10)], list("abcdefghij")):
        assert match_classes(NUMBERS, model) == tuple(range(10))
    # As folders called by numbers are sorted: by value, not by place.
    folders = tuple(sorted(map(str, range(12))))
    assert folders[2] == "10"
    for model in (12, tuple(map(str, range(12))), tuple("abcdefghijkl")):
        assert match_classes(folders, model, ordered=False) == tuple(map(int, folders))
    assert match_classes(("001", "000"), 2) == (1, 0)
    assert match_classes(("7", "3"), ("3", "07")) == (1, 0)


@pytest.mark.parametrize("model", [1000, [f"LABEL_{i}" for i in range(1000)], TORCHVISION])
def test_labels_that_may_be_anything_are_refused(model: Any) -> None:
    message = refused(NUMBERS, model)
    assert "labels from 0 to 9 and no names for them, and the model 1000 logits" in message
    assert "--data.mapping index" in message
    assert match_classes(NUMBERS, model, "index") == tuple(range(10))


def test_labels_that_count_from_one_are_refused() -> None:
    ones = tuple(map(str, range(1, 11)))
    for model in (10, tuple("abcdefghij")):
        assert "labels from 1 to 10" in refused(ones, model)
    assert "fits label 10 of the data" in refused(ones, NUMBERS)
    with pytest.raises(InputError, match="label 10 is none of the model's 10 logits"):
        match_classes(ones, 10, "index")


def test_fewer_labels_fit_a_model_whose_names_are_numbers() -> None:
    assert match_classes(NUMBERS[:7], NUMBERS) == tuple(range(7))


def test_ids_beside_labels_say_that_they_are_imagenets_own() -> None:
    classes = tuple(map(str, range(998)))
    present = {2, 134, 997}
    also = [(IDS[i],) if i in present else () for i in range(998)]
    assert match_classes(classes, 1000, synonyms=also, present=present) == tuple(range(998))
    also[2] = (IDS[3],)
    assert "labels from 0 to 997" in refused(classes, 1000, synonyms=also, present=present)
    found = match_classes(classes, TORCHVISION, synonyms=also, present=present)
    assert [found[i] for i in (2, 134, 997)] == [3, 134, 997]


def test_names_beside_labels_that_mean_something_else_leave_labels_alone() -> None:
    files = [(f"img_{i}.png",) for i in range(10)]
    assert match_classes(NUMBERS, tuple("abcdefghij"), synonyms=files) == tuple(range(10))
    some = [("cat",), ("img_1",)]
    assert "fits class 'img_1'" in refused(("0", "1"), ("cat", "dog"), synonyms=some)


# --- names and a model without -------------------------------------------------------------------


def test_the_alphabet_is_no_order() -> None:
    message = refused(("cat", "dog"), 2, ordered=False)
    assert "in alphabetical order" in message
    assert "--data.mapping index" in message
    assert match_classes(("cat", "dog"), 2, "index", ordered=False) == (0, 1)
    assert match_classes(("dog", "cat"), 2) == (0, 1)
    assert "names none of its 3 logits" in refused(("cat", "dog"), 3)
    assert "names none" in refused(("cat", "dog"), ("LABEL_0", "LABEL_1"), ordered=False)


# --- what the user says --------------------------------------------------------------------------


def test_a_mapping_says_which_class_is_which_logit(tmp_path: Path) -> None:
    model = ("cat", "dog", "bird")
    said = {"Wolf": 1, "husky": "dog", "tabby": "CAT", "owl": "2"}
    classes = ("husky", "wolf", "owl", "tabby")
    assert match_classes(classes, model, said) == (1, 1, 2, 0)
    (tmp_path / "m.json").write_text(json.dumps(said))
    assert match_classes(classes, model, str(tmp_path / "m.json")) == (1, 1, 2, 0)
    (tmp_path / "m.csv").write_text("class,name\n" + "".join(f"{a},{b}\n" for a, b in said.items()))
    assert match_classes(classes, model, tmp_path / "m.csv") == (1, 1, 2, 0)
    assert match_classes(("0", "1"), ("dog", "cat"), {"0": "cat", "1": "dog"}) == (1, 0)


def test_a_list_says_what_the_logits_are(tmp_path: Path) -> None:
    (tmp_path / "synsets.txt").write_text("\n".join(IDS))
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    assert match_classes(("n02012849",), 1000, tmp_path / "synsets.txt") == (134,)
    assert match_classes(("cat", "dog"), 2, tmp_path / "names.txt", ordered=False) == (1, 0)
    assert match_classes(("cat", "dog"), 2, {"1": "cat", "0": "dog"}) == (1, 0)
    assert match_classes(("cat",), ("x", "y"), ["dog", "cat"]) == (1,)
    assert match_classes(("n02012849", "n03126707"), 1000, "imagenet") == (134, 517)
    assert match_classes(("tench",), 1000, "imagenet") == (0,)


@pytest.mark.parametrize(
    ("classes", "model", "said", "message"),
    [
        (("cat",), 2, {"dog": 0}, "got none for class 'cat'"),
        (("c-a-t",), 2, {"cat": 0, "CAT": 1}, "got several for class 'c-a-t'"),
        (("cat",), 2, {"cat": 2}, "a place from 0 to 1 or the name of one logit, got 2 for class"),
        (("cat",), 2, {"cat": -1}, "got -1 for class 'cat'"),
        (("cat",), ("a", "b"), {"cat": "c"}, "got 'c' for class 'cat'"),
        (("cat",), 3, ["cat", "dog"], "a name for each of the model's 3 logits, .* got 2 names"),
        (("cat",), 3, {"0": "cat", "2": "dog"}, "a name for each of the model's 3 logits, from 0"),
        (("cat",), 10, "imagenet", "got 'imagenet'"),
        (("cat",), 10, "no/such/file.json", "got 'no/such/file.json'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    classes: Any, model: Any, said: Any, message: str
) -> None:
    with pytest.raises(InputError, match=f"^mapping: expected .*{message}"):
        match_classes(classes, model, said)


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("model", [(), ("one",), 1, "cat", ("a", None)])
def test_what_are_no_names_of_logits_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="model_classes: expected names of at least two logits"):
        match_classes(("cat",), model)
