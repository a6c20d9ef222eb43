"""Children of the benchmark: started, measured through /proc, and always ended, by their ids."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# How long a server may take to end by itself before it is killed.
END_PATIENCE_SECONDS = 10

# How long a load generator may run before it counts as stuck.
LOAD_PATIENCE_SECONDS = 300


class Stopped(Exception):
    """A child ended, or does not do what it should; the text says which and shows its log."""


class Child:
    """A server process with all that it starts; a context manager that ends it."""

    def __init__(self, command: list[str], log: Path, directory: Path):
        """Starts a command whose output goes to `log`."""
        self.log = log
        with log.open("wb") as output:
            # The kernel ends the child should this program die without a chance to do it.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                cwd=directory, start_new_session=True, preexec_fn=raise_limits)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the process and waits for it; kills it and its children where it does not listen."""
        if self.process.poll() is not None:
            return
        family = self.family()
        self.process.send_signal(how)
        try:
            self.process.wait(END_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(family):
                kill(pid)
            self.process.wait()

    def require_alive(self) -> None:
        """Raises with the log's end where the process is gone."""
        if self.process.poll() is not None:
            raise Stopped(f"{self.process.args[3]} ended with {self.process.returncode}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def family(self) -> list[int]:
        """The ids of the process and all its descendants."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in read(task).split())
        return found

    def cpu_seconds(self) -> float:
        """CPU time so far, of the process, its descendants, and those of its children that are gone."""
        total = 0
        for pid in self.family():
            fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
            # utime and stime (fields 14 and 15 of proc(5)); for the root also those of reaped children.
            total += sum(int(field) for field in fields[11:15 if pid == self.process.pid else 13])
        return total / TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Resident memory of the process and its descendants together."""
        total = 0
        for pid in self.family():
            for line in read(Path(f"/proc/{pid}/status")).splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total


def read(path: Path) -> str:
    """A file of /proc; empty where its process is gone."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pid: int) -> None:
    """Kills a process that may be gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def raise_limits() -> None:
    """Allows a child as many open files as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_load(command: list[str], environment: dict[str, str] | None = None) -> tuple[str, float]:
    """Runs a load generator to its end: its output, and the CPU seconds that it took."""
    before = children_cpu_seconds()
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                            timeout=LOAD_PATIENCE_SECONDS, env=environment, preexec_fn=raise_limits)
    if result.returncode != 0:
        raise Stopped(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")
    return result.stdout, children_cpu_seconds() - before


def children_cpu_seconds() -> float:
    """CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wait_until(what: str, child: Child, holds, patience_seconds: float = 30, pause_seconds: float = 0.001) -> None:
    """Asks again and again until something holds."""
    deadline = time.monotonic() + patience_seconds
    while not holds():
        child.require_alive()
        if time.monotonic() > deadline:
            raise Stopped(f"{what}: not within {patience_seconds} s:\n{child.log_tail()}")
        time.sleep(pause_seconds)
