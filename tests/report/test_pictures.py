import numpy as np

from holdfast.report.pictures import common_images, held_value, worst_images

CHECK = "top_k/gradient"


def test_the_worst_are_not_among_the_first(make_whole_run):
    run = make_whole_run()
    index = run.gallery["index"].tolist()
    assert [image for image, _ in common_images([run], CHECK, 9)] == index[:-1]
    assert [(i, [r.name for r in of]) for i, of, _ in worst_images([run], CHECK)] == [
        (index[-1], ["art"])
    ]


def test_the_worst_of_this_check_comes_first_and_labels_must_be_kept(make_whole_run):
    run = make_whole_run()
    run.gallery["worst"][:] = [0, 0, 0, 1, 1, 1]
    run.gallery[f"{CHECK}|kendall_tau"][3:] = [0.4, -0.9, 0.2]
    run.gallery[f"{CHECK}|preserved"][3:] = [1, 0, 1]
    index = run.gallery["index"]
    assert [image for image, _, _ in worst_images([run], CHECK, 3)] == [index[5], index[3]]
    assert worst_images([run], "wsol/gradient") == []


def test_an_image_that_is_first_here_and_worst_there(make_whole_run):
    one, two = make_whole_run("one"), make_whole_run("two")
    one.gallery["worst"][:] = [0, 0, 0, 0, 0, 1]
    two.gallery["worst"][:] = [1, 0, 0, 0, 0, 0]
    chosen = {i: [run.name for run in held] for i, held in common_images([one, two], CHECK, 9)}
    assert all(names == ["one", "two"] for names in chosen.values())
    assert len(chosen) == 6


def test_what_is_held_of_an_image(make_whole_run):
    run = make_whole_run()
    image = int(run.gallery["index"][2])
    np.testing.assert_array_equal(held_value(run, "boxes", image), run.gallery["boxes"][2])
