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


def rows():
    """Of all tables of the list, by what they are about: reason, licence, range."""
    found = {}
    for line in (REPOSITORY / "docs/dependencies.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] not in ("package", "library", "tool"):
            found[cells[0]] = cells[1:]
    return found


def test_every_dependency_is_listed_with_reason_licence_and_range():
    package = (REPOSITORY / "Package.swift").read_text()
    listed = rows()
    for cells in listed.values():
        assert len(cells) == 3 and all(cells), cells
    for name, minimum in re.findall(r'url: "https://[^"]*/([^"/]+)", from: "([^"]+)"', package):
        assert listed[name][2] == f"{minimum} up to {int(minimum.split('.')[0]) + 1}.0.0"
        # Where it was fetched its own words can be read.
        for file in (REPOSITORY / ".build/checkouts" / name).glob("LICENSE*"):
            text = file.read_text()
            exception = " with Runtime Library Exception" if "Runtime Library Exception" in text else ""
            assert "Apache License" in text and listed[name][1] == "Apache-2.0" + exception
    libraries = re.findall(r'pkgConfig: "([^"]+)"', package)
    assert len(libraries) >= 5
    for name in libraries:
        row = listed[next(key for key in listed if key.split(",")[0] == {"libcares": "c-ares"}.get(name, name))]
        oldest = re.fullmatch(r"([0-9.]+) and later", row[2])[1]
        here = subprocess.run(["pkg-config", f"--atleast-version={oldest}", name])
        assert here.returncode == 0, f"{name} here is older than what the list says"


def test_every_target_of_the_fuzzer_has_seeds():
    """By which fuzz.sh knows it."""
    targets = re.findall(r'^        "([a-z]+)": \(\1, ', (REPOSITORY / "Tests/Fuzz/Target.swift").read_text(), re.MULTILINE)
    assert len(targets) >= 12 and targets == sorted(path.stem for path in (REPOSITORY / "Tests/Fuzz/seeds").iterdir())


def test_the_fuzzer_has_an_account_of_the_present_layout():
    """An older one would be refused at its first octets."""
    golden = (REPOSITORY / "Tests/ClatAgentTests/HandoverTests.swift").read_text().split('static let golden = """')[1].split('"""')[0]
    account = "".join(line.strip().removesuffix("\\") for line in golden.strip().splitlines())
    assert f'"1{account}\n' in (REPOSITORY / "Tests/Fuzz/seeds/adoption.txt").read_text()
