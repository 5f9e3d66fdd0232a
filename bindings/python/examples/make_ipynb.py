"""Makes notebook.ipynb of notebook.py and runs it, so that the outputs are stored. Needs nbclient and ipykernel."""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent


def executed() -> nbformat.NotebookNode:
    """A cell begins with "# %%"; text is comment lines after "# %% [markdown]"."""
    cells = []
    for part in re.split(r"^# %%", (EXAMPLES / "notebook.py").read_text(), flags=re.MULTILINE)[1:]:
        head, source = part.split("\n", 1)
        if "[markdown]" in head:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.strip().splitlines())
            cells.append(nbformat.v4.new_markdown_cell(text, id=f"cell-{len(cells)}"))
        else:
            cells.append(nbformat.v4.new_code_cell(source.strip(), id=f"cell-{len(cells)}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    NotebookClient(notebook, timeout=60, record_timing=False).execute()
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(), EXAMPLES / "notebook.ipynb")
