"""Which processes keep XLA's remarks from their users."""

import pytest

from jaxmix.remarks import quiet_commands

PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize(
    ("argv", "orig_argv", "is_command"),
    [
        (["/usr/bin/jaxmix", "fit"], [PYTHON, "/usr/bin/jaxmix", "fit"], True),
        (["-m", "fit"], [PYTHON, "-X", "dev", "-m", "jaxmix", "fit"], True),
        (["analysis.py"], [PYTHON, "analysis.py", "jaxmix"], False),
        (["/usr/bin/pytest"], [PYTHON, "-m", "pytest", "jaxmix"], False),
        ([], [PYTHON], False),
        ([""], [PYTHON, "-c", "import jaxmix"], False),
    ],
)
def test_commands_are_quiet_and_libraries_are_not(argv, orig_argv, is_command):
    environment = {}
    quiet_commands(argv, orig_argv, environment)
    assert bool(environment) == is_command


def test_the_setting_of_the_user_wins():
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    quiet_commands(["jaxmix"], [PYTHON], environment)
    assert environment == {"TF_CPP_MIN_LOG_LEVEL": "0"}
