"""nic on a made-up host with a card."""

import os

from tree import TreeTest

PCI = "/sys/devices/pci0000:00/0000:00:03.0"
STATE = "/var/lib/holdline/nic-eth0.state"


class Nic(TreeTest):
    def nic(self, *arguments, status=0):
        return self.run_script("nic", *arguments, status=status)

    def host(self, cpus, rx, tx, local="", siblings=None, name="eth0-TxRx"):
        """A host with a card eth0: as many CPUs and queues, the CPUs near it, the siblings of a CPU as a function."""
        tree = self.tree
        tree.write("/sys/devices/system/cpu/online", f"0-{cpus - 1}\n")
        for cpu in range(cpus):
            text = siblings(cpu) if siblings else str(cpu)
            tree.write(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", text + "\n")
        tree.write(f"{PCI}/local_cpulist", local + "\n")
        for queue in range(rx):
            tree.write(f"{PCI}/net/eth0/queues/rx-{queue}/rps_cpus", "0\n")
            tree.write(f"{PCI}/net/eth0/queues/rx-{queue}/rps_flow_cnt", "0\n")
        for queue in range(tx):
            tree.write(f"{PCI}/net/eth0/queues/tx-{queue}/xps_cpus", "0\n")
        os.symlink("../..", tree.root / PCI.lstrip("/") / "net/eth0/device")
        (tree.root / "sys/class/net").mkdir(parents=True)
        os.symlink("../../devices/pci0000:00/0000:00:03.0/net/eth0", tree.root / "sys/class/net/eth0")
        lines = ["           CPU0       CPU1"]
        for at in range(max(rx, tx)):
            lines.append(f" {40 + at}:   17   4   PCI-MSIX-0000:00:03.0   {at}-edge      {name}-{at}")
        lines.append(" 39:    0   4   PCI-MSIX-0000:00:03.0   0-edge      eth0-config")
        lines.append(" 20:    0   4   IO-APIC   4-edge      ttyS0-1")
        tree.write("/proc/interrupts", "\n".join(lines) + "\n")
        for irq in (20, 39, *range(40, 40 + max(rx, tx))):
            tree.write(f"/proc/irq/{irq}/smp_affinity_list", f"0-{cpus - 1}\n")
            if irq != 20:
                tree.write(f"{PCI}/msi_irqs/{irq}", "msix\n")

    def rps(self, queue):
        return self.tree.read(f"{PCI}/net/eth0/queues/rx-{queue}/rps_cpus")

    def xps(self, queue):
        return self.tree.read(f"{PCI}/net/eth0/queues/tx-{queue}/xps_cpus")

    def irq(self, number):
        return self.tree.read(f"/proc/irq/{number}/smp_affinity_list")

    def test_fewer_queues_than_cpus_get_rps_rfs_and_shared_xps(self):
        self.host(cpus=8, rx=2, tx=2)
        self.nic("apply", "eth0")
        self.assertEqual([self.rps(0), self.rps(1)], ["ff", "ff"])
        self.assertEqual([self.xps(0), self.xps(1)], ["55", "aa"])
        self.assertEqual([self.irq(40), self.irq(41)], ["0", "1"])
        self.assertEqual(self.tree.get("net.core.rps_sock_flow_entries"), "32768")
        self.assertEqual(self.tree.read(f"{PCI}/net/eth0/queues/rx-1/rps_flow_cnt"), "16384")

    def test_interrupts_that_are_not_of_a_queue_or_not_of_the_card_stay(self):
        self.host(cpus=8, rx=2, tx=2)
        self.nic("apply", "eth0")
        self.assertEqual([self.irq(39), self.irq(20)], ["0-7", "0-7"])

    def test_a_queue_for_each_cpu_leaves_rps_alone(self):
        self.host(cpus=4, rx=4, tx=4)
        said = self.nic("apply", "eth0")
        self.assertIn("the card spreads packets itself", said)
        self.assertEqual([self.rps(queue) for queue in range(4)], ["0"] * 4)
        self.assertEqual([self.xps(queue) for queue in range(4)], ["1", "2", "4", "8"])
        self.assertEqual(self.tree.get("net.core.rps_sock_flow_entries"), "0")

    def test_masks_beyond_32_and_64_cpus_are_in_groups(self):
        self.host(cpus=70, rx=1, tx=2)
        self.nic("apply", "eth0")
        self.assertEqual(self.rps(0), "3f,ffffffff,ffffffff")
        self.assertEqual(self.xps(0), "15,55555555,55555555")
        self.nic("undo", "eth0")
        self.nic("apply", "eth0", "--cpus", "33,64")
        self.assertEqual(self.rps(0), "1,00000002,00000000")
        self.assertEqual([self.xps(0), self.xps(1)], ["2,00000000", "1,00000000,00000000"])

    def test_a_mask_with_the_kernels_leading_zeros_is_the_same(self):
        self.host(cpus=40, rx=1, tx=2)
        self.tree.write(f"{PCI}/net/eth0/queues/rx-0/rps_cpus", "00000000,000000ff,ffffffff\n")
        said = self.nic("show", "eth0")
        self.assertIn("rx-0 rps_cpus\n    00000000,000000ff,ffffffff: good as it is", said)

    def test_cpus_near_the_card_come_one_per_core_first(self):
        self.host(cpus=8, rx=4, tx=4, local="4-7", siblings=lambda cpu: f"{cpu & ~1}-{cpu | 1}")
        said = self.nic("apply", "eth0")
        self.assertEqual([self.irq(40 + at) for at in range(4)], ["4", "6", "5", "7"])
        self.assertIn("CPUAffinity=4,6,5,7 ", said)

    def test_more_queues_than_cpus_share_them(self):
        self.host(cpus=2, rx=3, tx=3)
        self.nic("apply", "eth0")
        self.assertEqual([self.xps(queue) for queue in range(3)], ["1", "2", "1"])
        self.assertEqual([self.irq(40 + at) for at in range(3)], ["0", "1", "0"])

    def test_virtio_lists_its_interrupts_at_its_parent(self):
        self.host(cpus=4, rx=2, tx=2, name="virtio2-input")
        device = self.tree.root / PCI.lstrip("/")
        (device / "virtio2").mkdir()
        os.rename(device / "net", device / "virtio2/net")
        os.remove(self.tree.root / "sys/class/net/eth0")
        os.symlink("../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0", self.tree.root / "sys/class/net/eth0")
        self.nic("apply", "eth0")
        self.assertEqual([self.irq(40), self.irq(41), self.irq(39)], ["0", "1", "0-3"])

    def test_undo_after_two_applies_puts_back_what_was_there(self):
        self.host(cpus=8, rx=2, tx=2)
        self.tree.write(f"{PCI}/net/eth0/queues/rx-0/rps_cpus", "0c\n")
        before = self.tree.kernel_files()
        self.nic("apply", "eth0")
        self.nic("apply", "eth0", "--cpus", "0-3")
        self.assertEqual(self.rps(0), "f")
        self.nic("undo", "eth0")
        self.assertEqual(self.tree.kernel_files(), before)
        self.assertFalse(self.tree.exists(STATE))

    def test_show_changes_nothing(self):
        self.host(cpus=8, rx=2, tx=2)
        before = self.tree.kernel_files()
        said = self.nic("show", "eth0")
        self.assertIn("interrupt 40 (eth0-TxRx-0)\n    0-7 -> 0\n    one CPU for each queue", said)
        self.assertEqual(self.tree.kernel_files(), before)

    def test_a_larger_table_of_flows_stays(self):
        self.host(cpus=8, rx=2, tx=2)
        self.tree.set("net.core.rps_sock_flow_entries", "65536")
        self.nic("apply", "eth0")
        self.assertEqual(self.tree.get("net.core.rps_sock_flow_entries"), "65536")

    def test_irqbalance_is_told_of_and_left_alone(self):
        self.host(cpus=2, rx=1, tx=1)
        self.assertNotIn("irqbalance", self.nic("show", "eth0"))
        self.tree.write("/proc/4242/comm", "irqbalance\n")
        self.assertIn("irqbalance runs and will move interrupts again", self.nic("show", "eth0"))

    def test_devices_without_hardware_are_refused(self):
        self.host(cpus=2, rx=1, tx=1)
        for name in ("lo", "veth0"):
            self.tree.write(f"/sys/class/net/{name}/queues/rx-0/rps_cpus", "0\n")
        for arguments in ([], ["--virtual"], ["--cpus", "0"]):
            self.assertIn("lo is no network card", self.nic("apply", "lo", *arguments, status=1))
        self.assertIn("veth0 is virtual", self.nic("apply", "veth0", status=1))
        self.assertIn("network cards here: eth0\n", self.nic("apply", "eth7", status=1))
        self.nic("apply", "veth0", "--virtual")
        self.assertEqual(self.tree.read("/sys/class/net/veth0/queues/rx-0/rps_cpus"), "3")

    def test_loopback_is_received_on_the_servers_cpus(self):
        self.host(cpus=4, rx=1, tx=1)
        self.tree.write("/sys/class/net/lo/queues/rx-0/rps_cpus", "0\n")
        before = self.tree.kernel_files()
        self.nic("apply", "lo", "--virtual", "--cpus", "0,2")
        changed = {path for path, value in self.tree.kernel_files().items() if before.get(path) != value}
        self.assertEqual(changed, {"sys/class/net/lo/queues/rx-0/rps_cpus"})
        self.assertEqual(self.tree.read("/sys/class/net/lo/queues/rx-0/rps_cpus"), "5")
        self.nic("undo", "lo")
        self.assertEqual(self.tree.kernel_files(), before)

    def test_bad_arguments_are_named_with_status_2(self):
        self.host(cpus=2, rx=1, tx=1)
        for arguments in (
            ["show"], ["nonsense", "eth0"], ["show", "../eth0"], ["undo", "../eth0"], ["show", "eth0", "--cpus", "3-1"],
            ["show", "eth0", "--cpus", "a"], ["show", "eth0", "--cpus", "99999999"], ["show", "eth0", "--nonsense"],
        ):
            self.assertRegex(self.nic(*arguments, status=2), r"^error: .*--help\n$", arguments)
        self.assertIn("none of the CPUs 7 is online", self.nic("show", "eth0", "--cpus", "7", status=1))
