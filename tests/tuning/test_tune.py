"""holdline-tune on a made-up host."""

import subprocess

from tree import DEFAULTS, REPO, TreeTest

PERSISTED = "/etc/sysctl.d/90-holdline.conf"
STATE = "/var/lib/holdline/sysctl.state"


class Tune(TreeTest):
    def tune(self, *arguments, status=0):
        return self.run_script("holdline-tune", *arguments, status=status)

    def test_show_says_now_wanted_and_why_and_changes_nothing(self):
        before = self.tree.kernel_files()
        said = self.tune("show", "--connections", "1000000")
        self.assertIn("net.core.somaxconn\n    4096 -> 65535\n    connections that wait to be accepted", said)
        self.assertIn("fs.file-max\n    2466170: good as it is", said)
        self.assertIn("\n9 to change", said)
        self.assertNotIn("ip_local_port_range", said)
        self.assertEqual(self.tree.kernel_files(), before)
        self.assertFalse(self.tree.exists(STATE))

    def test_apply_writes_what_show_said(self):
        self.tune("apply", "--connections", "1000000", "--client")
        wanted = {
            "fs.nr_open": "2097152",
            "net.core.somaxconn": "65535",
            "net.core.netdev_max_backlog": "65535",
            "net.ipv4.tcp_max_orphans": "1000000",
            "net.ipv4.tcp_max_tw_buckets": "1000000",
            "net.ipv4.ip_local_port_range": "1024 65535",
            "net.netfilter.nf_conntrack_max": "1315536",
        }
        self.assertEqual({key: self.tree.get(key) for key in wanted}, wanted)
        self.assertIn("0 to change", self.tune("show", "--connections", "1000000", "--client"))

    def test_tcp_mem_takes_at_most_half_of_the_memory_that_the_sockets_leave(self):
        self.tune("apply", "--connections", "5000000", "--memory", "24")
        # 6,291,456 pages less a page for each of 5,000,000 sockets.
        self.assertEqual(self.tree.get("net.ipv4.tcp_mem"), "287898 383867 645728")

    def test_connections_that_do_not_fit_into_memory_are_warned_of(self):
        self.assertIn("warning: 7000000 connections need", self.tune("show", "--connections", "7000000"))
        self.assertNotIn("warning", self.tune("show", "--connections", "5000000"))

    def test_nothing_is_lowered(self):
        for key, value in {
            "fs.file-max": "9223372036854775807",
            "fs.nr_open": "1073741816",
            "net.core.somaxconn": "1000000",
            "net.ipv4.tcp_mem": "9000000 100 9000000",
            "net.ipv4.ip_local_port_range": "500 60000",
        }.items():
            self.tree.set(key, value)
        self.tune("apply", "--client")
        self.assertEqual(self.tree.get("fs.file-max"), "9223372036854775807")
        self.assertEqual(self.tree.get("fs.nr_open"), "1073741816")
        self.assertEqual(self.tree.get("net.core.somaxconn"), "1000000")
        self.assertEqual(self.tree.get("net.ipv4.tcp_mem"), "9000000 1000000 9000000")
        self.assertEqual(self.tree.get("net.ipv4.ip_local_port_range"), "500 65535")

    def test_undo_puts_back_what_was_there_before_the_first_of_two_applies(self):
        before = self.tree.kernel_files()
        self.tune("apply", "--connections", "200000")
        self.tune("apply", "--connections", "2000000", "--client")
        self.assertEqual(self.tree.get("fs.nr_open"), "4194304")
        self.assertIn("11 put back, 0 failed", self.tune("undo"))
        self.assertEqual(self.tree.kernel_files(), before)
        self.assertFalse(self.tree.exists(STATE))
        self.assertIn("0 put back, 0 failed", self.tune("undo"))

    def test_k_and_m_are_thousands_and_millions(self):
        self.assertEqual(self.tune("show", "--connections", "5M"), self.tune("show", "--connections", "5000000"))
        self.assertEqual(self.tune("show", "--connections", "200k"), self.tune("show", "--connections", "200000"))

    def test_a_second_apply_changes_nothing(self):
        self.tune("apply")
        state = self.tree.read(STATE)
        self.assertIn("0 changed, 0 failed", self.tune("apply"))
        self.assertEqual(self.tree.read(STATE), state)

    def test_a_value_changed_by_someone_else_since_stays(self):
        self.tune("apply")
        self.tree.set("net.core.somaxconn", "99999")
        # Good as it is for another apply, which must not take it for its own.
        self.tune("apply")
        self.assertIn("changed to '99999' by someone else since; left, it was '4096'", self.tune("undo"))
        self.assertEqual(self.tree.get("net.core.somaxconn"), "99999")
        self.assertEqual(self.tree.get("fs.nr_open"), "1048576")

    def test_a_key_that_the_kernel_lacks_is_named_and_left_out(self):
        self.tree.remove(self.tree.path("net.netfilter.nf_conntrack_max"))
        self.assertIn("nf_conntrack_max\n    not on this kernel", self.tune("show"))
        self.assertIn("nf_conntrack_max: not on this kernel", self.tune("apply"))
        self.assertEqual(self.tree.get("net.core.somaxconn"), "65535")
        self.assertFalse(self.tree.exists(self.tree.path("net.netfilter.nf_conntrack_max")))

    def test_persist_writes_what_was_changed_and_undo_removes_it(self):
        self.tune("apply", "--persist")
        lines = self.tree.read(PERSISTED).splitlines()
        self.assertIn("net.core.somaxconn = 65535", lines)
        self.assertIn("-net.netfilter.nf_conntrack_max = 1315536", lines)
        self.assertIn("net.ipv4.tcp_mem = 750000 1000000 2000000", lines)
        self.assertFalse([line for line in lines if "file-max" in line], "it was good as it was")
        self.tune("undo")
        self.assertFalse(self.tree.exists(PERSISTED))

    def test_persist_after_an_apply_without_it(self):
        self.tune("apply")
        self.tune("apply", "--persist")
        self.assertIn("net.core.somaxconn = 65535", self.tree.read(PERSISTED))

    def test_someone_elses_persisted_file_is_neither_written_nor_removed(self):
        self.tree.write(PERSISTED, "net.core.somaxconn = 7\n")
        self.assertIn("someone else's file", self.tune("apply", "--persist", status=1))
        self.tune("undo")
        self.assertEqual(self.tree.read(PERSISTED), "net.core.somaxconn = 7")

    def test_a_damaged_state_is_no_write_to_anywhere(self):
        for line in ("/etc/passwd\ta\tb", "/proc/../etc/passwd\ta\tb", "nonsense"):
            self.tree.write(STATE, line + "\n")
            self.assertIn("is damaged", self.tune("undo", status=1))

    def test_values_that_are_no_numbers_do_not_reach_the_arithmetic(self):
        self.tree.set("net.core.somaxconn", f"a[$(touch {self.tree.root}/injected)]")
        self.assertIn("-> 65535", self.tune("show"))
        self.assertFalse(self.tree.exists("/injected"))
        self.tree.write("/proc/meminfo", "MemTotal: lots kB\n")
        self.assertIn("no MemTotal", self.tune("show", status=1))

    def test_bad_arguments_are_named_with_status_2(self):
        for arguments in (
            ["show", "--connections", "0"], ["show", "--connections", "1e6"], ["show", "--connections", "M"],
            ["show", "--connections", "101M"], ["show", "--connections", "100000001"],
            ["show", "--connections", ""], ["show", "--memory", "-1"], ["show", "--nonsense"], ["nonsense"],
            ["show", "--persist"],
        ):
            said = self.tune(*arguments, status=2)
            self.assertRegex(said, r"^error: .*--help\n$", arguments)

    def test_apply_without_root_says_so_in_one_line(self):
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", REPO / "tuning/holdline-tune", "apply"],
            capture_output=True, text=True, timeout=60, check=False,
        )
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
        self.assertIn("needs root: start it with sudo", done.stderr)

    def test_the_file_beside_it_is_what_it_prints(self):
        done = subprocess.run(
            [REPO / "tuning/holdline-tune", "print", "--connections", "1000000", "--memory", "24"],
            capture_output=True, text=True, timeout=60, check=True,
        )
        file = (REPO / "tuning/holdline-sysctl.conf").read_text()
        self.assertEqual(file, done.stdout, "write it anew with the command in its first line")

    def test_no_key_of_the_plan_is_missing_from_the_readme(self):
        readme = (REPO / "tuning/README.md").read_text()
        for key in DEFAULTS:
            self.assertIn(f"`{key}`", readme)
