"""Run the notebooks of this folder, each from a fresh kernel; with --write, keep the outputs in place."""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

try:
    import nbformat
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from tqdm import tqdm
    from traitlets.config import Config
except ImportError as error:
    sys.exit(f'notebooks/run.py needs {error.name}: pip install -e ".[notebooks]"')

FOLDER = Path(__file__).resolve().parent
TIMEOUT = 300  # seconds for one cell
ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})  # else the kernel warns


class ThisPython(AsyncKernelManager):
    """Starts the Python that runs this script, whatever kernels the user has installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


def execute(file: Path, bar: tqdm) -> tuple[nbformat.NotebookNode, str]:
    """The notebook with new outputs, and what went wrong with it ("" if nothing did)."""
    notebook = nbformat.read(file, as_version=4)

    def advance(cell: nbformat.NotebookNode, **_: object) -> None:
        bar.update(cell.cell_type == "code")

    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        config=ENCRYPTED,
        resources={"metadata": {"path": str(file.parent)}},
        timeout=TIMEOUT,
        record_timing=False,
        on_cell_executed=advance,
    )
    try:
        client.execute()
    except (CellControlSignal, DeadKernelError) as error:
        return notebook, re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return notebook, ""


def warnings(notebook: nbformat.NotebookNode) -> str:
    """What the cells wrote to stderr, which belongs on no printed page."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what changes from one run, machine or editor to the next."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    return notebook


def write(file: Path, notebook: nbformat.NotebookNode) -> None:
    """Replace the file, whole or not at all."""
    nbformat.validate(notebook)
    partial = file.with_suffix(".partial")
    partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    partial.replace(file)


def main() -> int:
    """Run them; 0 if all ran to their end."""
    parser = argparse.ArgumentParser(prog="notebooks/run.py", description=__doc__)
    parser.add_argument("--write", action="store_true", help="save the outputs in place (default: only check)")
    parser.add_argument("starts", nargs="*", metavar="START", help="of the names of those to run; all by default")
    args = parser.parse_args()
    files = [file for file in sorted(FOLDER.glob("*.ipynb")) if file.name.startswith(tuple(args.starts) or "")]
    if not files:
        sys.exit(f"no such notebooks in {FOLDER}")
    counts = [sum(cell.cell_type == "code" for cell in nbformat.read(file, as_version=4).cells) for file in files]
    failed = 0
    with tempfile.TemporaryDirectory() as private, tqdm(total=sum(counts), unit="cell") as bar:
        # Neither the user's IPython profile nor their running kernels have a part in this.
        os.environ.update(IPYTHONDIR=private, JUPYTER_RUNTIME_DIR=private)
        os.environ.pop("MPLBACKEND", None)  # the kernel's own draws into the notebook
        for done, file in enumerate(files):
            bar.set_description(file.name)
            began = time.perf_counter()
            notebook, wrong = execute(file, bar)
            bar.n = sum(counts[: done + 1])
            took = time.perf_counter() - began
            if args.write and not wrong and warnings(notebook):
                wrong = f"not saved, as cells wrote to stderr:\n{warnings(notebook)}"
            if wrong:
                failed += 1
                tqdm.write(f"{file.name}: failed after {took:.1f} s\n{wrong}", file=sys.stderr)
                continue
            if args.write:
                write(file, stripped(notebook))
            tqdm.write(f"{file.name}: {'written' if args.write else 'runs'}, {took:.1f} s", file=sys.stdout)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
