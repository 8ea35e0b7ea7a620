"""A made-up host for the tests: /proc/sys, /sys and what else the scripts read, below a temporary folder."""

import os
import pathlib
import subprocess
import tempfile
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]

# What Linux 6.18 has with 24 GiB.
DEFAULTS = {
    "fs.file-max": "2466170",
    "fs.nr_open": "1048576",
    "fs.epoll.max_user_watches": "5491511",
    "net.core.somaxconn": "4096",
    "net.core.netdev_max_backlog": "1000",
    "net.core.rps_sock_flow_entries": "0",
    "net.ipv4.tcp_max_syn_backlog": "2048",
    "net.ipv4.tcp_mem": "287898\t383867\t575796",
    "net.ipv4.tcp_max_orphans": "131072",
    "net.ipv4.tcp_max_tw_buckets": "131072",
    "net.ipv4.ip_local_port_range": "32768\t60999",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_buckets": "262144",
}


class Tree:
    """The folder, with reading and writing of its files by the path they would have on a host."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder)
        self.write("/proc/meminfo", "MemFree: 1 kB\nMemTotal:       25165824 kB\n")
        for key, value in DEFAULTS.items():
            self.set(key, value)

    def write(self, path, text):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, path):
        return (self.root / path.lstrip("/")).read_text().rstrip("\n")

    def exists(self, path):
        return (self.root / path.lstrip("/")).exists()

    def remove(self, path):
        (self.root / path.lstrip("/")).unlink()

    def path(self, key):
        return "/proc/sys/" + key.replace(".", "/")

    def set(self, key, value):
        self.write(self.path(key), value + "\n")

    def get(self, key):
        return " ".join(self.read(self.path(key)).split())

    def kernel_files(self):
        """Every file below /proc and /sys with its words; a kernel file's spaces are the kernel's own matter."""
        files = {}
        for top in ("proc", "sys"):
            for folder, _, names in os.walk(self.root / top):
                for name in names:
                    file = pathlib.Path(folder) / name
                    files[str(file.relative_to(self.root))] = file.read_text().split()
        return files


class TreeTest(unittest.TestCase):
    """A test with a tree of its own, and the scripts run on it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="holdline-tuning-")
        self.addCleanup(folder.cleanup)
        self.tree = Tree(folder.name)

    def run_script(self, script, *arguments, status=0):
        done = subprocess.run(
            [REPO / "tuning" / script, *arguments, "--root", self.tree.root],
            capture_output=True, text=True, timeout=60, check=False,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr
