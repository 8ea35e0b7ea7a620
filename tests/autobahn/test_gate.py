"""The gate must fail whenever it should: python3 -m unittest discover -s tests/autobahn"""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import gate


def report(extent="subset", agent="holdline", **changed):
    """A report in which every case passed, but for those in `changed` ("c6_4_1" is case 6.4.1)."""
    others = {f"1.1.{number}" for number in range(1, 518 - len(gate.COMPRESSION_GROUPS) * 18)}
    compression = {f"{group}.{case}" for group in gate.COMPRESSION_GROUPS for case in range(1, 19)}
    cases = others | compression
    if extent == "subset":
        cases -= gate.LEFT_OUT
    results = {case: {"behavior": "OK", "behaviorClose": "INFORMATIONAL"} for case in cases}
    for name, result in changed.items():
        del results["1.1.1"]
        results[name.removeprefix("c").replace("_", ".")] = result
    return {agent: results}


class Judge(unittest.TestCase):
    def test_a_clean_report_passes(self):
        for extent in gate.CASES:
            self.assertEqual(gate.judge(report(extent), "holdline", extent), [])

    def test_the_subset_leaves_out_120_cases(self):
        self.assertEqual(len(gate.LEFT_OUT), gate.CASES["all"] - gate.CASES["subset"])
        self.assertEqual(set(gate.spec("a", "u", "d", "subset")["exclude-cases"]), gate.LEFT_OUT)
        self.assertEqual(gate.spec("a", "u", "d", "all")["exclude-cases"], [])

    def test_an_agent_that_is_not_there_fails(self):
        self.assertTrue(gate.judge({}, "holdline", "subset"))
        self.assertTrue(gate.judge(report(agent="another"), "holdline", "subset"))

    def test_a_missing_case_fails(self):
        fewer = report()
        del fewer["holdline"]["1.1.5"]
        self.assertTrue(gate.judge(fewer, "holdline", "subset"))
        self.assertTrue(gate.judge(report("subset"), "holdline", "all"))
        self.assertTrue(gate.judge({"holdline": {}}, "holdline", "subset"))

    def test_a_case_too_many_fails(self):
        self.assertTrue(gate.judge(report("all"), "holdline", "subset"))

    def test_whatever_is_not_ok_or_informational_fails(self):
        for word in ["NON-STRICT", "FAILED", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", None]:
            for result in [{"behavior": word, "behaviorClose": "OK"}, {"behavior": "OK", "behaviorClose": word}, {}]:
                faults = gate.judge(report(c6_4_1=result), "holdline", "subset")
                self.assertEqual(len(faults), 1, f"{result}: {faults}")


class Command(unittest.TestCase):
    def run_gate(self, *arguments):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            return gate.main(list(arguments)), out.getvalue()

    def test_exit_status(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "index.json"
            self.assertEqual(self.run_gate("judge", str(path), "holdline", "subset")[0], 1)
            path.write_text("not json")
            self.assertEqual(self.run_gate("judge", str(path), "holdline", "subset")[0], 1)
            path.write_text(json.dumps(report()))
            self.assertEqual(self.run_gate("judge", str(path), "holdline", "subset")[0], 0)
            self.assertEqual(self.run_gate("judge", str(path), "holdline", "all")[0], 1)
            path.write_text(json.dumps(report(c6_4_1={"behavior": "NON-STRICT", "behaviorClose": "OK"})))
            status, out = self.run_gate("judge", str(path), "holdline", "subset")
            self.assertEqual((status, "6.4.1" in out), (1, True))
            self.assertEqual(self.run_gate("judge", str(path), "holdline", "most")[0], 2)


if __name__ == "__main__":
    unittest.main()
