"""What a process costs while nothing is asked of it: wake-ups, time on the CPU, memory."""

import dataclasses
import pathlib
import re
import time


def resident(process):
    """Resident memory in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1])


@dataclasses.dataclass
class Idleness:
    """What a process did while nothing was asked of it."""

    seconds: float
    wakeups: dict
    cpu_milliseconds: float
    resident: int


def _threads(process):
    """By thread: its name, how often it gave up the CPU by itself, nanoseconds on the CPU."""
    found = {}
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        switches = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M)[1]
        on_cpu = (task / "schedstat").read_text().split()[0]
        found[int(task.name)] = ((task / "comm").read_text().strip(), int(switches), int(on_cpu))
    return found


def idle(processes, seconds):
    """Leaves all contestants alone for a time. By name, from `processes` by name."""
    before = {name: _threads(process) for name, process in processes.items()}
    start = time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - start
    after = {name: _threads(process) for name, process in processes.items()}
    result = {}
    for name, threads in after.items():
        old = before[name]
        wakeups, on_cpu = {}, 0
        for number, (title, switches, nanoseconds) in threads.items():
            _, switches_before, before_nanoseconds = old.get(number, (title, 0, 0))
            wakeups[title] = wakeups.get(title, 0) + switches - switches_before
            on_cpu += nanoseconds - before_nanoseconds
        result[name] = Idleness(lasted, wakeups, on_cpu / 1e6, resident(processes[name]))
    return result
