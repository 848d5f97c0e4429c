"""Print the constraints of an environment at one end of what settings.ini allows, for `make
test-oldest` and `make test-newest`.

oldest: what a user needs at its lower bounds, the development tools as pinned. newest: all that the
bounds allow. torch is the pinned one in both: any other would bring several GB of CUDA packages.
"""

import re
import sys

from project import ROOT, settings


def bounds(which: str) -> list[str]:
    "The constraints, a line each; none but torch's for the newest."
    pins = dict(
        re.findall(
            r"^([\w.-]+)==(\S+)$",
            (ROOT / "constraints.txt").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    lowest = dict(re.findall(r"([\w.-]+)>=([\w.]+)", settings()["requirements"]))
    tools = [re.match(r"[\w.-]+", line)[0] for line in settings()["dev_requirements"].split()]
    chosen = {"newest": {}, "oldest": {name: pins[name] for name in tools} | lowest}[which] | {
        "torch": pins["torch"]
    }
    return [f"{name}=={version}" for name, version in chosen.items()]


if __name__ == "__main__":
    print(*bounds(*sys.argv[1:]), sep="\n")
