"""An agent whose system calls fail as told: strace(1) tampers with them, from the program's first one on.

    with Faulty(lab, "sendto", "ENOBUFS", "3") as faulty: ...    # the third of each thread

A thread's calls are counted for itself, so what a thread does but once, such as setns(2), fails each time it is told to fail the first.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys

from namespace import wait_until

# Stops before the program begins, so that no call of its is missed.
STOPPED = [sys.executable, "-c", "import os, signal, sys; os.kill(os.getpid(), signal.SIGSTOP); os.execvp(sys.argv[1], sys.argv[1:])"]


class Tampering:
    """strace, attached to a running agent or to one of its threads. `when` is strace's: `3` is the third call, `3+` that and all
    later ones. `path` limits it to calls about that file."""

    def __init__(self, agent, call, error, when, path=None, thread=None):
        process = agent.process.pid
        if thread:
            process = next(int(task.name) for task in pathlib.Path(f"/proc/{process}/task").iterdir()
                           if (task / "comm").read_text().strip() == thread)
        self._log = pathlib.Path(agent.runtime_directory, "strace")
        follow = [] if thread else ["-f"]
        self._tracer = subprocess.Popen(
            ["strace", *follow, "-qq", "-o", self._log, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}",
             *(["-P", path] if path else []), "-p", str(process)], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: _field(process, "TracerPid") != "0", what="the tracer")

    @property
    def injected(self):
        """How many calls have been made to fail."""
        return len(re.findall(r"\(INJECTED\)", self._log.read_text() if self._log.exists() else ""))

    def heal(self):
        """From now on no call fails any more."""
        if self._tracer.poll() is None:
            self._tracer.terminate()
            self._tracer.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()


class Faulty(Tampering):
    """The same with an agent of its own, from its program's first call on."""

    def __init__(self, lab, call, error, when, path=None, *arguments, **options):
        self.agent = lab.agent(*arguments, wrapper=STOPPED, **options)
        process = self.agent.process.pid
        wait_until(lambda: _state(process) == "T", what="the agent, stopped")
        super().__init__(self.agent, call, error, when, path)
        os.kill(process, signal.SIGCONT)

    def __exit__(self, *_):
        self.heal()
        if self.agent.process.poll() is None:
            self.agent.kill()


def _state(process):
    return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def _field(process, name):
    for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1]
    return "0"


def descriptors(process):
    """What the process has open, without what tells one of a kind from another, sorted."""
    found = []
    for path in pathlib.Path(f"/proc/{process}/fd").iterdir():
        try:
            found.append(re.sub(r"\d+", "N", os.readlink(path)))
        except OSError:
            pass  # closed meanwhile
    return sorted(found)


def threads(process):
    """The names of its threads, sorted."""
    found = []
    for path in pathlib.Path(f"/proc/{process}/task").iterdir():
        try:
            found.append((path / "comm").read_text().strip())
        except OSError:
            pass  # ended meanwhile
    return sorted(found)
