"""All benchmarks of the diagnostics in one run: `python reports/benchmarks/diagnostics.py` writes diagnostics.md.

About half an hour on two cores, most of it waiting for the peers; nothing else should run meanwhile.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {
    "A whole analysis": "analyze.py",
    "Spectra, block means, nearest tokens": "spectra.py",
    "Agreement between spaces": "rsa.py",
}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    from importlib import metadata

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy", "rsatoolbox"))
    parts = [
        "# Diagnostics at industrial size",
        f"`python reports/benchmarks/diagnostics.py` on {os.cpu_count()} cores ({processor()}); {versions}.",
    ]
    for title, script in PARTS.items():
        run = subprocess.run([sys.executable, HERE / script], stdout=subprocess.PIPE, text=True, check=True)
        parts += [f"## {title}", run.stdout.strip()]
        (HERE / "diagnostics.md").write_text("\n\n".join(parts) + "\n")  # what is done is kept


if __name__ == "__main__":
    main()
