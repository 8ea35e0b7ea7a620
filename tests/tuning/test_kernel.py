"""The scripts on the kernel itself, in a network namespace of their own: the host's values are not touched."""

import glob
import os
import pathlib
import subprocess
import tempfile
import unittest

from tree import REPO

# Of the plan, what a namespace has a copy of. Everything else is not visible in one, but for the files below /proc/sys/fs,
# which belong to the whole host: an empty folder is mounted over them.
OF_A_NAMESPACE = ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_max_tw_buckets", "net.ipv4.ip_local_port_range")

PRELUDE = """
set -eu
[ "$(readlink /proc/self/ns/net)" != "$(readlink /proc/1/ns/net)" ] || { echo "not in a namespace"; exit 9; }
mount -t tmpfs none /proc/sys/fs
mount -t sysfs none /sys
mount -t tmpfs none "$STATE_DIR"
values() { for key in %s; do sysctl -n "$key" 2>/dev/null || cat "/proc/sys/$(tr . / <<<"$key")"; done | tr '\\t\\n' '  '; echo; }
""" % " ".join(OF_A_NAMESPACE)


def in_namespace(script, folder):
    done = subprocess.run(
        ["unshare", "--net", "--mount", "bash", "-c", PRELUDE + script],
        capture_output=True, text=True, timeout=60, check=False, cwd=REPO,
        env={**os.environ, "STATE_DIR": folder, "STATE": f"{folder}/state"},
    )
    return done.returncode, done.stdout, done.stderr


class Kernel(unittest.TestCase):
    def setUp(self):
        self.assertEqual(os.getuid(), 0, "these tests need root: start them with sudo")
        folder = tempfile.TemporaryDirectory(prefix="holdline-tuning-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def values(self):
        paths = ["/proc/sys/" + key.replace(".", "/") for key in OF_A_NAMESPACE]
        paths += ["/proc/sys/fs/nr_open", "/proc/sys/net/core/netdev_max_backlog", "/proc/sys/net/ipv4/tcp_mem"]
        paths += glob.glob("/proc/sys/net/netfilter/nf_conntrack_[mb]*")
        return [pathlib.Path(path).read_text(encoding="ascii") for path in paths]

    def test_apply_and_undo(self):
        host = self.values()
        status, out, err = in_namespace(
            """
            values
            tuning/holdline-tune apply --client --state "$STATE" >"$STATE.said" 2>&1 || true
            values
            tuning/holdline-tune apply --client --connections 2000000 --state "$STATE" >>"$STATE.said" 2>&1 || true
            tuning/holdline-tune undo --state "$STATE" >>"$STATE.said" 2>&1
            values
            grep -c 'not on this kernel' "$STATE.said"
            """,
            self.folder,
        )
        self.assertEqual(status, 0, out + err)
        before, tuned, after, missing = out.splitlines()
        self.assertEqual(tuned.split(), ["65535", "65535", "1000000", "1024", "65535"])
        self.assertNotEqual(before, tuned)
        self.assertEqual(after, before)
        self.assertGreater(int(missing), 0, "a namespace lacks net.ipv4.tcp_mem")
        self.assertEqual(self.values(), host, "the host's own values changed")

    def test_a_key_that_fails_is_named_and_the_others_are_written(self):
        status, out, err = in_namespace(
            """
            values
            mount --bind /proc/sys/net/core/somaxconn /proc/sys/net/core/somaxconn
            mount -o remount,ro,bind /proc/sys/net/core/somaxconn
            tuning/holdline-tune apply --state "$STATE" >"$STATE.said" 2>&1 && echo "should have failed"
            grep somaxconn "$STATE.said"
            values
            cut -f 1 "$STATE" | grep -c somaxconn || true
            tuning/holdline-tune undo --state "$STATE" >/dev/null
            values
            """,
            self.folder,
        )
        self.assertEqual(status, 0, out + err)
        before, _, said, tuned, recorded, after = out.splitlines()
        self.assertEqual(said, "error: /proc/sys/net/core/somaxconn did not take '65535': Read-only file system")
        self.assertEqual(tuned.split()[1:3], ["65535", "1000000"])
        self.assertEqual(recorded, "0", "undo must not find what was not done")
        self.assertEqual(after, before)

    def test_queues_of_a_real_device(self):
        status, out, err = in_namespace(
            """
            ip link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1
            show() { cat /sys/class/net/v0/queues/{rx-0/rps_cpus,tx-0/xps_cpus,tx-1/xps_cpus} | tr '\\n' ' '; echo; }
            show
            tuning/nic apply v0 --virtual --cpus 0 --state "$STATE" >"$STATE.said" 2>&1
            show
            tuning/nic undo v0 --state "$STATE" >>"$STATE.said"
            show
            """,
            self.folder,
        )
        self.assertEqual(status, 0, out + err)
        before, tuned, after = out.splitlines()
        self.assertEqual([int(mask.replace(",", ""), 16) for mask in tuned.split()][1:], [1, 1])
        self.assertNotEqual(before, tuned)
        self.assertEqual(after, before)
