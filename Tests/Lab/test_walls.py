"""The walls of the house: each room uses what docs/design.md lets it use, and that is further down."""

import collections
import re

from agent import REPOSITORY

SOURCES = REPOSITORY / "Sources"
IMPORT = re.compile(r"^(?:@testable )?(?:public |package |internal )?import (?:struct |func |enum |class )?(\w+)", re.MULTILINE)
# What others can use of a file: its types and functions outside of any brace.
DECLARED = re.compile(
    r"^(?:@\w+(?:\([^)]*\))? )*(?:(?:public|final|indirect|internal|package) )*(?:struct|class|enum|protocol|typealias|func) (\w+)", re.MULTILINE)
NESTED = re.compile(r"^[ \t]+.*?\b(?:struct|class|enum|protocol|typealias|case) (\w+)", re.MULTILINE)
# One of these at a place: a comment, a string's end or escape, the beginning of an interpolation.
TOKEN = re.compile(r'//[^\n]*|#"+|"""|"|\\\(|\\.|[()]|[^/#"\\()]+|.', re.DOTALL)


def code(text):
    """A Swift source without comments and without what strings say; what they interpolate stays."""
    kept, inside = [], []  # inside: quotes of strings, and depths of parentheses within them
    for token in TOKEN.findall(text):
        if inside and isinstance(inside[-1], str):
            if token == inside[-1] or inside[-1].startswith("#") and token == '"':
                inside.pop()
            elif token == "\\(" and not inside[-1].startswith("#"):
                inside.append(1)
        elif token.startswith("//"):
            pass
        elif token.endswith('"'):
            inside.append(token)
        else:
            if inside and token in "()":
                inside[-1] += 1 if token == "(" else -1
                if inside[-1] == 0:
                    inside.pop()
            kept.append(token)
    return "".join(kept)


def table():
    """By folder under Sources: what it may use, in the order of the table."""
    rows = re.findall(r"^\| `Sources/([^`*]+)/` \|.*\| ([^|]*) \|$", (REPOSITORY / "docs/design.md").read_text(), re.MULTILINE)
    return {folder.removeprefix("ClatAgent/"): set(re.findall(r"\w+", re.sub(r"\([^)]*\)", "", uses))) for folder, uses in rows}


def walls(sources, rooms):
    """What the sources ({path: text}) use against the table, a line each. Rooms of ClatAgent are told by the types they declare."""
    texts = {path: code(text) for path, text in sources.items()}
    room = {path: path.split("/")[1] if path.startswith("ClatAgent/") else path.split("/")[0] for path in sources}
    ours = {folder.split("/")[0] for folder in rooms} | {"ClatAgent"} | {name for uses in rooms.values() for name in uses}
    owner = {name: path for path, text in texts.items() if path.startswith("ClatAgent/") for name in DECLARED.findall(text)}
    found = collections.defaultdict(set)
    for path, text in texts.items():
        for name in IMPORT.findall(text):
            if name in ours:
                found[path].add((name, f"import {name}"))
        if path.startswith("ClatAgent/"):
            nested = set(NESTED.findall(text))
            for name in set(re.findall(r"(?<![.\w])[A-Z]\w*|(?<![.\w])\w+(?=\()", text)) - nested:
                if name in owner and room[owner[name]] != room[path]:
                    found[path].add((room[owner[name]], name))
    return sorted(f"{path}: {what} of {used}" for path, uses in found.items() for used, what in uses
                  if used != room[path] and used not in rooms[room[path]])


def swift_sources():
    return {str(path.relative_to(SOURCES)): path.read_text() for path in SOURCES.rglob("*.swift")}


def test_each_room_uses_what_it_may():
    rooms = table()
    sources = swift_sources()
    assert len(sources) > 100 and {path.split("/")[1] for path in sources if path.startswith("ClatAgent/")} <= set(rooms)
    assert walls(sources, rooms) == []


def test_what_may_be_used_is_further_down():
    rooms = table()
    order = list(rooms)
    above = [f"{folder} may use {used}" for folder, uses in rooms.items() for used in uses
             if used in rooms and order.index(used) <= order.index(folder)]
    assert above == []
    assert "ClatNetlink" not in rooms["ClatTranslator"] and "ClatTranslator" not in rooms["ClatNetlink"]


def test_what_is_pure_calls_no_system():
    for folder in ("Discovery", "Decision"):
        for path in (SOURCES / "ClatAgent" / folder).glob("*.swift"):
            text = code(path.read_text())
            assert not {"Glibc", "CAres"} & set(IMPORT.findall(text)), path
            assert not re.search(r"BootInstant\.now|\.random\(|OwnedDescriptor|readFile|readText", text), path


def test_headers_reach_for_nothing_of_ours():
    for path in SOURCES.glob("C*/*.h"):
        assert not re.search(r'#include "../Clat', path.read_text()), path


def test_a_broken_wall_is_seen():
    """Upward by type, by import and from within a string; what a comment or a string says is nothing."""
    rooms = table()
    sources = swift_sources()
    harmless = sources["ClatAgent/Model/Step.swift"] + '\n// AgentMachine\nlet x = "AgentMachine"\n'
    assert walls(sources | {"ClatAgent/Model/Step.swift": harmless}, rooms) == []
    for spoilt in ("func f(_: AgentMachine) {}", "import ClatNetlink", 'let x = "a \\(AgentMachine.self) b"'):
        text = sources["ClatAgent/Model/Step.swift"] + f"\n{spoilt}\n"
        assert len(walls(sources | {"ClatAgent/Model/Step.swift": text}, rooms)) == 1, spoilt
