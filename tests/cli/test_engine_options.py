import pytest

from holdfast.cli.engine_options import add_engine_options, take_engine
from holdfast.cli.options import make_parser
from holdfast.errors import HoldfastError, InputError


def asked(*arguments):
    parser = make_parser("audit", asked)
    add_engine_options(parser)
    return take_engine(vars(parser.parse_args(list(arguments))))


def test_ray_and_what_it_is_told():
    assert asked() is None
    assert asked("--engine", "ray") == {"address": None, "gpus": None}
    both = asked("--engine=ray", "--address=first:6379", "--gpus", "0.5")
    assert both == {"address": "first:6379", "gpus": 0.5}


@pytest.mark.parametrize("alone", ["--address=first:6379", "--gpus=0"])
def test_refuses_what_only_ray_takes(alone):
    with pytest.raises(HoldfastError, match="--address and --gpus go with --engine ray"):
        asked(alone)


def test_refuses_another_engine():
    with pytest.raises(InputError, match="--engine: expected ray, got 'dask'"):
        asked("--engine", "dask")


def test_the_command_says_so_in_a_line(command):
    done = command("audit", "no/run", "--engine", "ray", "--devices", "2")
    assert done.status == 2
    assert done.stderr.startswith("holdfast: error: --devices is not for --engine ray")
    done = command("reproduce", "digits/methods", "--engine", "rai")
    assert (done.status, done.stderr) == (2, "holdfast: error: --engine: expected ray, got 'rai'\n")
