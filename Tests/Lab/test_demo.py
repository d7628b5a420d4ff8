"""What `make demo` shows, to one who reads it from a pipe."""

import subprocess
import sys

import pytest

from agent import REPOSITORY

pytestmark = pytest.mark.agent


def test_the_demonstration_succeeds_and_is_plain_text():
    result = subprocess.run(
        [sys.executable, "-B", REPOSITORY / "Tests/Lab/demo.py"], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "The demonstration succeeded." in result.stdout and "no difference" in result.stdout
    assert "\033" not in result.stdout + result.stderr
