"""What the project is made of: the tarball is the same twice, and every dependency is listed with its reason and licence."""

import os
import re
import shutil
import subprocess
import time

import pytest

from agent import REPOSITORY

pytestmark = pytest.mark.skipif(
    not shutil.which("git") or subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True).returncode != 0,
    reason="this is no git checkout")


def test_the_tarball_is_the_same_octets_twice(tmp_path):
    """Of two checkouts, at other times, in other time zones, with other masks and settings."""
    sums = []
    for number, (zone, mask) in enumerate([("UTC", 0o022), ("Asia/Kathmandu", 0o077)]):
        clone = tmp_path / f"checkout-{number}"
        subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True, umask=mask)
        subprocess.run(["git", "-C", clone, "config", "core.autocrlf", "true" if number else "false"], check=True)
        out = tmp_path / f"out-{number}"
        subprocess.run([clone / "contrib/dist/build", out], check=True, umask=mask, env=os.environ | {"TZ": zone},
                       stdout=subprocess.DEVNULL)
        tarball, = out.iterdir()
        sums.append((tarball.name, tarball.read_bytes()))
        time.sleep(1.1)
    assert sums[0] == sums[1]
    assert re.fullmatch(r"clat-agent-\d+\.\d+\.\d+\.tar\.gz", sums[0][0])
    listed = subprocess.run(["tar", "-tzf", tmp_path / "out-0" / sums[0][0]], capture_output=True, text=True, check=True).stdout
    assert "/Package.swift\n" in listed and "/.build" not in listed


def test_every_dependency_is_listed():
    text = (REPOSITORY / "docs/dependencies.md").read_text()
    package = (REPOSITORY / "Package.swift").read_text()
    wanted = re.findall(r'url: "https://[^"]*/([^"/]+)"', package)
    wanted += [{"libcares": "c-ares"}.get(name, name) for name in re.findall(r'pkgConfig: "([^"]+)"', package)]
    assert len(wanted) >= 7
    missing = [name for name in wanted if name not in text]
    assert not missing
    for minimum in re.findall(r'from: "([^"]+)"', package):
        assert f"{minimum} up to" in text
