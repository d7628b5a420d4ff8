"""What `make demo` shows, to one who reads it from a pipe; as root, and as one who may only make user namespaces."""

import subprocess
import sys

import pytest

from agent import REPOSITORY
from namespace import PATIENCE, in_user_namespace

pytestmark = pytest.mark.agent
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]


def demonstrate(*wrapper):
    result = subprocess.run(
        [*wrapper, sys.executable, "-B", REPOSITORY / "Tests/Lab/demo.py"], capture_output=True, text=True,
        timeout=300 * PATIENCE, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "The demonstration succeeded." in result.stdout and "no difference" in result.stdout
    assert "\033" not in result.stdout + result.stderr
    return " ".join(result.stdout.split())


def test_the_demonstration_succeeds_and_is_plain_text():
    demonstrate()


@pytest.mark.skipif(in_user_namespace(), reason="is without root as it is")
def test_the_demonstration_needs_no_root():
    if (refusal := subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)).returncode != 0:
        pytest.skip(f"no user namespaces: {refusal.stderr.strip()}")
    assert "steered by routes and rules" in demonstrate(*UNSHARE)
