"""The resident memory of another process, as the kernel counts it: what it has now, and the most that it ever had."""

from pathlib import Path

from attrs import define

MEBIBYTE = 1 << 20


@define
class Memory:
    """That of a process, against what it had when this was made."""

    pid: int
    idle: int = 0

    def __attrs_post_init__(self) -> None:
        # The kernel's record of the most is that of now from here on (proc(5), clear_refs).
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.idle = self._of("VmRSS")

    def most(self) -> float:
        """Mebibytes above the idle process at the worst moment since."""
        return (self._of("VmHWM") - self.idle) / MEBIBYTE

    def _of(self, name: str) -> int:
        """A line of ``/proc/…/status``, in bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
