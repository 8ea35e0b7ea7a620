"""Judges what Autobahn's fuzzing client reported: wstest itself exits 0 whatever happened.

    gate.py spec AGENT URL DIR all|subset     prints the test plan for wstest
    gate.py judge DIR/index.json AGENT all|subset

Passing means: the exact set of cases, and each of them OK or INFORMATIONAL in its behaviour and in its close. A case that
is NON-STRICT (bad UTF-8 not refused at the bad byte) does not pass.
"""

import json
import sys

PASSING = {"OK", "INFORMATIONAL"}
CASES = {"all": 517, "subset": 397}

# The groups of the compression cases: 12.1 to 12.5 and 13.1 to 13.7, 18 cases each. Cases 9 to 18 repeat 1 to 8 with
# longer messages and other fragment sizes and take most of the fuzzer's time: the subset leaves them out.
COMPRESSION_GROUPS = [f"12.{group}" for group in range(1, 6)] + [f"13.{group}" for group in range(1, 8)]
LEFT_OUT = {f"{group}.{case}" for group in COMPRESSION_GROUPS for case in range(9, 19)}


def spec(agent, url, directory, extent):
    """What wstest reads."""
    return {
        "outdir": directory,
        "servers": [{"agent": agent, "url": url}],
        "cases": ["*"],
        "exclude-cases": sorted(LEFT_OUT) if extent == "subset" else [],
        "exclude-agent-cases": {},
    }


def judge(index, agent, extent):
    """Every fault found, one line each; none when the agent passed."""
    if agent not in index:
        return [f"the report has nothing about {agent}: the server did not answer, or wstest did not run"]
    results = index[agent]
    faults = []
    if len(results) != CASES[extent]:
        faults.append(f"{len(results)} cases were run, {CASES[extent]} are due")
    if extent == "subset":
        faults += [f"{case} was run and should not have been" for case in results if case in LEFT_OUT]
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        behavior, close = result.get("behavior"), result.get("behaviorClose")
        if behavior not in PASSING or close not in PASSING:
            report = result.get("reportfile", "")
            faults.append(f"case {case}: behavior {behavior}, close {close} (code {result.get('remoteCloseCode')}) {report}")
    return faults


def main(arguments):
    match arguments:
        case ["spec", agent, url, directory, extent] if extent in CASES:
            json.dump(spec(agent, url, directory, extent), sys.stdout, indent=1)
            return 0
        case ["judge", path, agent, extent] if extent in CASES:
            try:
                with open(path, encoding="utf-8") as file:
                    index = json.load(file)
            except (OSError, ValueError) as error:
                print(f"autobahn {agent}: no report: {error}")
                return 1
            faults = judge(index, agent, extent)
            for fault in faults:
                print(f"autobahn {agent}: {fault}")
            cases = len(index.get(agent, {}))
            failed = sum(fault.startswith("case ") for fault in faults)
            print(f"autobahn {agent}: {cases} cases, {cases - failed} passed, {failed} failed, {len(faults)} faults in all")
            return 1 if faults else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
